# What waiting costs. The benchmark looks at the processes' CPU time when a line
# of these comes.
import os

seconds = int(os.environ["BENCH_COUNT"])
machine.succeed("true")
for name, wait in {
    "console": lambda: machine.wait_for_console_text("BENCH-READY"),
    "unit": lambda: machine.wait_for_unit("bench.service"),
}.items():
    machine.succeed(f"(sleep {seconds}; echo BENCH-READY > $BENCH_SERIAL; touch ready) >/dev/null 2>&1 </dev/null &")
    print("BENCH idle-begin 0", flush=True)
    wait()
    print(f"BENCH idle-{name} {seconds}", flush=True)
    machine.succeed("rm -f ready")
