# Started as `python3 -c <this text>` with the driver's socket as descriptor 3.
# It must parse in any Python, so that an old one can be told apart from a
# broken one. The first line that the driver sends holds the sources of the
# package test_driver: nothing of it is on disk.
import os
import sys

if sys.version_info < (3, 11):
    text = '{"unsupported": {"version": "%s"}}\n' % sys.version.split()[0]
    os.write(3, text.encode())
    sys.exit(0)

if not sys.flags.safe_path:
    del sys.path[0]  # the working directory, which -c puts there

from importlib.machinery import ModuleSpec
from json.decoder import JSONDecoder


class EmbeddedImporter:
    """Imports modules from their sources in memory."""

    def __init__(self, sources):
        self.sources = sources

    def find_spec(self, name, path=None, target=None):
        if name not in self.sources:
            return None
        return ModuleSpec(name, self, is_package=name + ".*" in self.sources)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__
        code = compile(self.sources[name], "<%s>" % name, "exec", dont_inherit=True)
        exec(code, module.__dict__)

    def get_source(self, name):
        return self.sources[name]


def bootstrap():
    os.set_inheritable(3, False)
    chunks = []
    while not chunks or b"\n" not in chunks[-1]:
        chunks.append(os.read(3, 1 << 20))
        if not chunks[-1]:
            sys.exit("the driver has ended")
    line, _, unread = b"".join(chunks).partition(b"\n")
    writer = open(3, "wb", buffering=1 << 18, closefd=False)  # see bridge.ONE_WRITE
    init = JSONDecoder().decode(line.decode())["init"]
    sys.meta_path.insert(0, EmbeddedImporter(init["modules"]))

    from test_driver.main import main

    main(3, writer, unread, init)


bootstrap()
