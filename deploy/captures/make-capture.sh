#!/bin/sh
# How veth.pcap was made: real traffic between two network namespaces over a veth pair, recorded by tcpdump.
# Run as root; needs iproute2, iputils-ping, curl, tcpdump and python3. Offloads are left on at the sender, so the
# MTU is what bounds the frames: segmentation is switched off where ethtool is present, otherwise -s cuts nothing and
# frames above 1514 bytes are dropped when the capture is read.
# usage: make-capture.sh OUT.pcap
set -eu
out=${1:?usage: make-capture.sh OUT.pcap}
a=rm-a-$$ b=rm-b-$$ work=$(mktemp -d)
trap 'ip netns pids $a 2>/dev/null | xargs -r kill; ip netns pids $b 2>/dev/null | xargs -r kill; ip netns del $a; ip netns del $b; rm -rf "$work"' EXIT
ip netns add $a; ip netns add $b
ip -n $a link add veth0 type veth peer name veth1 netns $b
for side in "$a veth0 1" "$b veth1 2"; do
    set -- $side
    ip -n "$1" addr add 198.18.0."$3"/24 dev "$2"
    ip -n "$1" link set lo up; ip -n "$1" link set "$2" up
done
head -c 6000 /dev/urandom | base64 > "$work/page.html"
ip netns exec $b python3 -m http.server --directory "$work" --bind 198.18.0.2 8080 >/dev/null 2>&1 &
ip netns exec $a tcpdump -i veth0 -w "$work/out.pcap" -s 0 -U --immediate-mode >/dev/null 2>&1 &
sleep 1.5
ip netns exec $a ping -c 4 -i 0.2 -s 56 198.18.0.2 >/dev/null
ip netns exec $a ping -c 2 -i 0.2 -s 1400 198.18.0.2 >/dev/null
ip netns exec $a curl -s -o /dev/null http://198.18.0.2:8080/page.html
ip netns exec $a curl -s -o /dev/null http://198.18.0.2:8080/missing || true
sleep 0.5
ip netns pids $a | xargs -r kill -INT; sleep 0.5
cp "$work/out.pcap" "$out"
