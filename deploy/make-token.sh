#!/bin/sh
# Writes a fresh token to deploy/secrets/token, the secret that compose.yaml mounts: what the links and the admin
# endpoints of one mesh ask for. An existing token stays, unless --force is given; restart the mesh after that.
set -eu
dir=$(dirname "$0")/secrets
file=$dir/token
if [ -e "$file" ] && [ "${1:-}" != --force ]; then
    echo "$file is there already (--force writes another one)"
    exit 0
fi
mkdir -p "$dir"
# A file secret is a bind mount: it keeps its mode, and the containers' user is not its owner. So the file is readable
# to everybody, and the directory closed to everybody but its owner.
chmod 700 "$dir"
umask 022
head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > "$file.new"
[ "$(wc -c < "$file.new")" -eq 64 ] || { echo "cannot make a token" >&2; rm -f "$file.new"; exit 1; }
mv "$file.new" "$file"
echo "wrote $file"
