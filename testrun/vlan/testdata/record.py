#!/usr/bin/env python3
"""Records the handshake of the real programs: request-v3.bin, which vde_plug
(libvdeplug 2) sends, and answer.bin, which vde_switch gives to such a request."""
import os, socket, struct, subprocess, tempfile, time

here = os.path.dirname(os.path.abspath(__file__))


def write(name, data):
    with open(f"{here}/{name}", "wb") as out:
        out.write(data)


with tempfile.TemporaryDirectory(prefix="vde1.ctl.") as ctl, socket.socket(socket.AF_UNIX) as listener:
    listener.bind(ctl + "/ctl")
    listener.listen()
    listener.settimeout(10)
    plug = subprocess.Popen(["vde_plug", "vde://" + ctl], stdin=subprocess.PIPE)
    with listener.accept()[0] as client:
        write("request-v3.bin", client.recv(4096))
    plug.wait()

with tempfile.TemporaryDirectory(prefix="vde1.") as tmp:
    ctl = tmp + "/ctl"
    switch = subprocess.Popen(["vde_switch", "--sock", ctl, "--hub"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while not os.path.exists(ctl + "/ctl"):
        time.sleep(0.01)
    with socket.socket(socket.AF_UNIX) as client, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as data:
        data.bind(tmp + "/data")
        client.connect(ctl + "/ctl")
        client.sendall(struct.pack("=IIIH108s", 0xFEEDFACE, 3, 0, socket.AF_UNIX, data.getsockname().encode()) + b"record.py")
        write("answer.bin", client.recv(4096))
    switch.terminate()
    switch.wait()
