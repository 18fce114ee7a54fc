import subprocess

print("one", end="")
machine.log("two")
print("three")
subprocess.run(["echo", "four"])
os.write(1, b"five\n")
print("six", file=__import__("sys").stderr)
machine.succeed("seven")
print("eight")
