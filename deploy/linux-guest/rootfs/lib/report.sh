# What the guest says about itself: one function a section. Only files are read and few processes are started, for an
# emulated processor starts about a hundred a second.

SCMI=/sys/kernel/debug/scmi/0
TRACE=/sys/kernel/tracing

# parameter NAME: the value of a kernel parameter; nothing where it is not given
parameter() {
	local word line
	read -r line </proc/cmdline
	for word in $line; do
		case $word in
		"$1="*) echo "${word#*=}" ;;
		"$1") echo 1 ;;
		esac
	done
}

TRACING=$(parameter ringmesh.trace)

# section NAME COMMAND…: run it between two marks; the second one has its exit status
section() {
	local name=$1 code
	shift
	echo "@begin $name"
	("$@") 2>&1
	code=$?
	echo "@end $name status $code"
}

# show PREFIX FILE…: "PREFIX name: value" of each file that can be read, without starting a process
show() {
	local prefix=$1 file value
	shift
	for file; do
		[ -f "$file" ] || continue
		value=
		read -r value 2>/dev/null <"$file" || [ -n "$value" ] || continue
		echo "$prefix${file##*/}: $value"
	done
}

# value FILE: its first line; unlike cat it does not read again after an error
value() {
	local value
	read -r value <"$1" && echo "$value"
}

virtio() {
	local device
	for device in /sys/bus/virtio/devices/*; do
		[ -e "$device" ] || continue
		show "${device##*/} " "$device/device" "$device/features" "$device/status"
	done
}

# name of the SCMI device, the node of its protocol, its driver ("-": none)
devices() {
	local device driver node
	for device in /sys/bus/scmi_protocol/devices/*; do
		[ -e "$device" ] || continue
		driver=-
		node=-
		[ -e "$device/driver" ] && driver=$(readlink "$device/driver")
		[ -e "$device/of_node" ] && node=$(readlink "$device/of_node")
		echo "${device##*/} ${node##*/} ${driver##*/}"
	done
}

# every frequency of every policy is set once, from the lowest to the highest, and read back from the platform
cpufreq() {
	local policy list frequency now
	for policy in /sys/devices/system/cpu/cpufreq/policy*; do
		[ -e "$policy" ] || continue
		cd "$policy"
		show "${policy##*/} " scaling_driver affected_cpus scaling_available_frequencies
		echo userspace >scaling_governor || continue
		read -r list <scaling_available_frequencies
		for frequency in $list; do
			echo "$frequency" >scaling_setspeed
			read -r now <cpuinfo_cur_freq
			echo "set $frequency -> $now"
		done
	done
}

hwmon() {
	local device name input label value
	for device in /sys/class/hwmon/*; do
		[ -e "$device" ] || continue
		read -r name <"$device/name"
		for input in "$device"/*_input; do
			[ -f "$input" ] || continue
			label=-
			value=error
			[ -f "${input%_input}_label" ] && read -r label <"${input%_input}_label"
			read -r value 2>/dev/null <"$input"
			echo "$name $(basename "${input%_input}") $label: $value"
		done
	done
}

thermal() {
	local zone type value
	for zone in /sys/class/thermal/thermal_zone*; do
		[ -e "$zone" ] || continue
		read -r type <"$zone/type"
		read -r value <"$zone/temp"
		echo "$type: $value"
	done
}

# name: rate enable_count
clocks() {
	local directory rate count
	for directory in /sys/kernel/debug/clk/*/; do
		[ -f "$directory/clk_rate" ] || continue
		read -r rate <"$directory/clk_rate"
		read -r count <"$directory/clk_enable_count"
		directory=${directory%/}
		echo "${directory##*/}: $rate $count"
	done
}

# name: state
power_domains() {
	local directory state
	for directory in /sys/kernel/debug/pm_genpd/*/; do
		[ -f "$directory/current_state" ] || continue
		read -r state <"$directory/current_state"
		directory=${directory%/}
		echo "${directory##*/}: $state"
	done
}

# name: microvolts state; then every virtual consumer asks for the lowest, the highest and the first voltage
regulators() {
	local one name value state low high consumer target
	for one in /sys/class/regulator/*; do
		[ -f "$one/microvolts" ] || continue
		read -r name <"$one/name"
		read -r value <"$one/microvolts"
		state=unknown
		[ -f "$one/state" ] && read -r state <"$one/state"
		echo "$name: $value $state"
		[ -f "$one/min_microvolts" ] || continue
		read -r low <"$one/min_microvolts"
		read -r high <"$one/max_microvolts"
		consumer=/sys/devices/platform/consumer-$name
		[ -e "$consumer" ] || continue
		for target in "$low" "$high" "$value"; do
			# an empty range is a request for nothing, so that the next one does not meet the last
			echo 0 >"$consumer/min_microvolts"
			echo 0 >"$consumer/max_microvolts"
			echo "$target" >"$consumer/max_microvolts"
			echo "$target" >"$consumer/min_microvolts"
			read -r now <"$one/microvolts"
			echo "set $name $target -> $now"
		done
	done
}

powercap() {
	local zone
	for zone in /sys/class/powercap/*:*; do
		[ -e "$zone" ] || continue
		show "${zone##*/} " "$zone/name" "$zone/power_uw" "$zone/constraint_0_power_limit_uw" \
			"$zone/constraint_0_max_power_uw" "$zone/constraint_0_min_power_uw" "$zone/constraint_0_time_window_us"
	done
}

pinctrl() {
	local directory
	for directory in /sys/kernel/debug/pinctrl/*/; do
		[ -f "$directory/pins" ] || continue
		cat "$directory/pins" "$directory/pingroups" "$directory/pinmux-functions"
	done
}

# everything that the SCMI core shows in debugfs; raw/ is not to be read
scmi() {
	local file
	show "" $SCMI/*
	show transport/ $SCMI/transport/*
	show transport/counters/ $SCMI/transport/counters/*
	for file in transport_max_msg_size transport_rx_max_msg transport_tx_max_msg; do
		show transport/ $SCMI/transport/$file
	done
}

messages() {
	dmesg | grep -iE "scmi|virtio|cpufreq|amba|rtc|regulator|powercap|warn|error|fail|timed out|BUG|not a head"
}

trace() {
	cat $TRACE/trace
}

# scmi_raw HEX: one message (header and payload) through the kernel's raw mode; prints the answer in hex
scmi_raw() {
	exec 3<>$SCMI/raw/${2:-message}
	printf "$(echo "$1" | sed 's/../\\x&/g')" >&3
	dd bs=256 count=1 <&3 2>/dev/null | hexdump -v -e '1/1 "%02x"'
	echo
	exec 3>&-
}

# scmi_notifications FILE…: what raw mode has received, in hex, one a line; does not wait
scmi_notifications() {
	while dd if=$SCMI/raw/notification iflag=nonblock bs=256 count=1 2>/dev/null | hexdump -v -e '256/1 "%02x"' | grep .; do
		:
	done
}

# the last words: counters, and the trace where it is wanted
farewell() {
	section "$1" scmi
	[ -n "$TRACING" ] && section trace trace
}
