# The package of the tools, of what "make build" has built: builds that only need
# the tools need not compile them once more.
bin:
let
  directory = toString (/. + bin);
in
{
  outPath = builtins.path {
    name = "vm-prebuild";
    path = dirOf directory;
    filter = path: _: path == directory || dirOf path == directory;
  };
  meta = {
    license = null;
    platforms = [ "x86_64-linux" ];
  };
}
