# Option types: a name, a check of one definition, and how the definitions of
# one option become its value.
lib:
let
  fail = loc: msg: throw "option `${builtins.concatStringsSep "." loc}': ${msg}";

  # All definitions must agree.
  equal =
    loc: defs:
    if builtins.all (d: d == builtins.head defs) defs then
      builtins.head defs
    else
      fail loc "has conflicting definitions";
  single =
    loc: defs: if builtins.length defs == 1 then builtins.head defs else fail loc "is defined more than once";

  mkType =
    attrs:
    {
      _type = "option-type";
      merge = equal;
      # The value of an option that nobody defines and that has no default.
      emptyValue = { };
    }
    // attrs;
  simple = name: check: mkType { inherit name check; };

  isModule = x: builtins.isAttrs x || builtins.isFunction x || builtins.isPath x;

  attrsWith =
    isPresent: t:
    mkType {
      name = "attribute set of ${t.name}";
      check = builtins.isAttrs;
      emptyValue.value = { };
      merge =
        loc: defs:
        let
          pushed = builtins.concatMap lib.pushDownProperties defs;
          byName = builtins.zipAttrsWith (_: builtins.concatMap lib.dischargeProperties) pushed;
        in
        builtins.mapAttrs (n: lib.mergePrioritised (loc ++ [ n ]) t) (lib.filterAttrs isPresent byName);
    };

  types = {
    inherit isModule;
    str = simple "str" builtins.isString;
    strMatching =
      pattern:
      simple "string matching the pattern ${pattern}" (x: builtins.isString x && builtins.match pattern x != null);
    bool = simple "bool" builtins.isBool;
    int = simple "int" builtins.isInt;
    port = simple "port" (x: builtins.isInt x && x >= 0 && x <= 65535);
    ints.positive = simple "positive int" (x: builtins.isInt x && x > 0);
    ints.unsigned = simple "unsigned int" (x: builtins.isInt x && x >= 0);
    path = simple "path" (x: builtins.isPath x || lib.isDerivation x || (builtins.isString x && lib.hasPrefix "/" x));
    enum = values: simple "enum" (x: builtins.elem x values);
    package = mkType {
      name = "package";
      check = x: lib.isDerivation x || builtins.isPath x || (builtins.isString x && lib.hasPrefix builtins.storeDir x);
      merge = single;
    };
    raw = mkType {
      name = "raw";
      check = _: true;
      merge = single;
    };
    anything = mkType {
      name = "anything";
      check = _: true;
      merge =
        loc: defs:
        if builtins.all builtins.isAttrs defs then
          builtins.foldl' lib.recursiveUpdate { } defs
        else
          equal loc defs;
    };
    lines = mkType {
      name = "lines";
      check = builtins.isString;
      merge = _: builtins.concatStringsSep "\n";
    };
    nullOr =
      t:
      mkType {
        name = "null or ${t.name}";
        check = x: x == null || t.check x;
        merge = loc: defs: if builtins.all (d: d == null) defs then null else t.merge loc defs;
      };
    either =
      a: b:
      mkType {
        name = "${a.name} or ${b.name}";
        check = x: a.check x || b.check x;
        merge =
          loc: defs:
          if builtins.all a.check defs then
            a.merge loc defs
          else if builtins.all b.check defs then
            b.merge loc defs
          else
            equal loc defs;
      };
    oneOf = ts: builtins.foldl' types.either (builtins.head ts) (builtins.tail ts);
    functionTo =
      t:
      mkType {
        name = "function";
        check = lib.isFunction;
        merge = loc: defs: {
          __functionArgs = builtins.foldl' (acc: f: acc // lib.functionArgs f) { } defs;
          __functor = _: arg: t.merge loc (map (f: f arg) defs);
        };
      };
    listOf =
      t:
      mkType {
        name = "list of ${t.name}";
        check = builtins.isList;
        emptyValue.value = [ ];
        merge =
          loc: defs:
          builtins.concatMap (d: map (x: lib.evalDefinitions loc t [ x ]) d) defs;
      };
    attrsOf = attrsWith (_: xs: xs != [ ]);
    # Keeps the names whose definitions are all mkIf false, and so needs no
    # value to know the names.
    lazyAttrsOf = attrsWith (_: _: true);
    # Modules that are merged, not evaluated: somebody imports them later.
    deferredModule = mkType {
      name = "module";
      check = _: true;
      emptyValue.value = { };
      merge = _: defs: { imports = defs; };
    };
    submodule = module: types.submoduleWith { modules = [ module ]; };
    submoduleWith =
      {
        modules,
        specialArgs ? { },
      }:
      mkType {
        name = "submodule";
        check = types.isModule;
        emptyValue.value = { };
        merge =
          loc: defs:
          (lib.evalModules {
            prefix = loc;
            modules = modules ++ defs;
            specialArgs = {
              name = builtins.elemAt loc (builtins.length loc - 1);
            }
            // specialArgs;
          }).config;
      };
  };
in
{
  inherit types;
  mkOptionType = mkType;
}
