#!/bin/sh
# Gives a builder the closure of the tests as they were last built, all at once and
# before a job waits for it; and keeps it from the garbage collector:
#   fill-builder.sh STORE-PATH…
set -eu
cache=https://cache.example.org # where the cache of post-build-hook.sh is
public_key='cache.example.org-1:…'

exec vm-prebuild import --store / --from "$cache" --trusted-public-keys "$public_key" --gc-root vm-tests "$@"
