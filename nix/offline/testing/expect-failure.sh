# BUILDER ARGUMENT…: runs a builder that has to fail. See testers.testBuildFailure.
set -u
export PATH=/usr/bin:/bin
"$@" 2>&1 | tee testBuildFailure.log
status=${PIPESTATUS[0]}
if [ "$status" = 0 ]; then
    echo "testBuildFailure: the builder succeeded" >&2
    exit 1
fi
if [ -e "$out" ]; then mv "$out" result; fi
mkdir "$out"
if [ -e result ]; then mv result "$out/result"; fi
mv testBuildFailure.log "$out/"
echo "$status" >"$out/testBuildFailure.exit"
