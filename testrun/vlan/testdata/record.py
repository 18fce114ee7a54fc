#!/usr/bin/env python3
"""Records request-v3.bin, the request that vde_plug (libvdeplug 2) sends."""
import os, socket, subprocess, tempfile

here = os.path.dirname(os.path.abspath(__file__))
with tempfile.TemporaryDirectory(prefix="vde1.ctl.") as ctl, socket.socket(socket.AF_UNIX) as listener:
    listener.bind(ctl + "/ctl")
    listener.listen()
    listener.settimeout(10)
    plug = subprocess.Popen(["vde_plug", "vde://" + ctl], stdin=subprocess.PIPE)
    with listener.accept()[0] as client, open(here + "/request-v3.bin", "wb") as out:
        out.write(client.recv(4096))
    plug.wait()
