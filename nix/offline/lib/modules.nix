# A module evaluator: imports, options with types, mkIf, mkMerge, priorities.
# It follows nixpkgs' lib/modules.nix in meaning; positions, renames,
# freeform types and documentation are left out.
lib:
let
  showLoc = builtins.concatStringsSep ".";
  defaultPriority = 100;
  optionDefaultPriority = 1500;
  defaultOrder = 1000;

  isOption = x: (x._type or null) == "option";

  # A module is a path, a function, or an attribute set; the latter is either
  # { imports, options, config } or short for { imports, config = the rest }. One
  # that has a key, as every path does, counts once.
  normalise =
    args: module:
    if builtins.isPath module || builtins.isString module then
      { key = toString module; } // normalise args (import module)
    else if builtins.isFunction module || module ? __functor then
      normalise args (
        module (builtins.mapAttrs (name: _: args.${name} or (throw "module argument `${name}' does not exist")) (builtins.functionArgs module) // args)
      )
    else
      {
        imports = module.imports or [ ];
        options = module.options or { };
        config =
          if module ? config || module ? options then
            module.config or { }
          else
            removeAttrs module [
              "imports"
              "_file"
              "key"
            ];
      }
      // lib.optionalAttrs (module ? key) { inherit (module) key; };
  # All modules, those that others import behind them, in the reverse of the order in
  # which they are found: so nixpkgs concatenates the definitions of a list.
  collect =
    args: modules:
    let
      named =
        parent:
        lib.imap0 (
          i: module:
          let
            m = normalise args module;
          in
          { key = "${parent}:anonymous-${toString i}"; } // m
        );
    in
    lib.reverseList (
      builtins.genericClosure {
        startSet = named "" modules;
        operator = m: named m.key m.imports;
      }
    );

  mergeOptions =
    loc: a: b:
    a
    // builtins.mapAttrs (
      n: v:
      if !(a ? ${n}) then
        v
      else if isOption a.${n} || isOption v then
        throw "option `${showLoc (loc ++ [ n ])}' is declared twice"
      else
        mergeOptions (loc ++ [ n ]) a.${n} v
    ) b;

  # All options with their values, lazily; definitions that match no option are
  # found by `unmatched`, so that looking up one value does not force all.
  evalTree =
    loc: options: defs:
    let
      pushed = builtins.concatMap lib.pushDownProperties defs;
    in
    builtins.mapAttrs (
      n: opt:
      let
        here = loc ++ [ n ];
        sub = builtins.concatMap (d: lib.optional (d ? ${n}) d.${n}) pushed;
      in
      if isOption opt then evalOption here opt sub else evalTree here opt sub
    ) options;
  valuesOf = builtins.mapAttrs (_: opt: if isOption opt then opt.value else valuesOf opt);

  evalOption =
    loc: opt: defs:
    let
      all =
        builtins.concatMap lib.dischargeProperties defs
        ++ lib.optional (opt ? default) {
          priority = optionDefaultPriority;
          order = defaultOrder;
          value = opt.default;
        };
      type = opt.type or lib.types.raw;
      value =
        if all != [ ] then
          lib.mergePrioritised loc type all
        else
          type.emptyValue.value or (throw "option `${showLoc loc}' is used but has no value");
    in
    opt
    // {
      isDefined = all != [ ];
      highestPrio = lib.highestPriority all;
      value =
        if opt.readOnly or false && builtins.length all > 1 + (if opt ? default then 1 else 0) then
          throw "option `${showLoc loc}' is read-only and set more than once"
        else
          (opt.apply or (x: x)) value;
    };

  unmatched =
    loc: options: defs:
    let
      pushed = builtins.concatMap lib.pushDownProperties defs;
      names = lib.unique (builtins.concatMap builtins.attrNames pushed);
    in
    builtins.concatMap (
      n:
      let
        here = loc ++ [ n ];
        sub = builtins.concatMap (d: lib.optional (d ? ${n}) d.${n}) pushed;
      in
      if !(options ? ${n}) then
        [ (showLoc here) ]
      else if isOption options.${n} then
        [ ]
      else
        unmatched here options.${n} sub
    ) names;
in
{
  inherit isOption;
  mkOption = attrs: attrs // { _type = "option"; };
  mkEnableOption =
    what:
    lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether to enable ${what}.";
    };
  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkMerge = contents: {
    _type = "merge";
    inherit contents;
  };
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkForce = lib.mkOverride 50;
  mkDefault = lib.mkOverride 1000;
  mkOptionDefault = lib.mkOverride optionDefaultPriority;
  mkOrder = priority: content: {
    _type = "order";
    inherit priority content;
  };
  mkBefore = lib.mkOrder 500;
  mkAfter = lib.mkOrder 1500;

  # Moves mkIf, mkMerge and mkOverride from an attribute set to its members,
  # so that the names are known without evaluating any condition.
  pushDownProperties =
    cfg:
    if (cfg._type or null) == "if" then
      map (builtins.mapAttrs (_: v: lib.mkIf cfg.condition v)) (lib.pushDownProperties cfg.content)
    else if (cfg._type or null) == "merge" then
      builtins.concatMap lib.pushDownProperties cfg.contents
    else if (cfg._type or null) == "override" then
      map (builtins.mapAttrs (_: v: lib.mkOverride cfg.priority v)) (lib.pushDownProperties cfg.content)
    else
      [ cfg ];

  # The { priority, order, value } sets that a definition stands for.
  dischargeProperties =
    def:
    if (def._type or null) == "if" then
      if def.condition then lib.dischargeProperties def.content else [ ]
    else if (def._type or null) == "merge" then
      builtins.concatMap lib.dischargeProperties def.contents
    else if (def._type or null) == "override" then
      map (d: d // { inherit (def) priority; }) (lib.dischargeProperties def.content)
    else if (def._type or null) == "order" then
      map (d: d // { order = def.priority; }) (lib.dischargeProperties def.content)
    else
      [
        {
          order = defaultOrder;
          priority = defaultPriority;
          value = def;
        }
      ];

  # The number is lower the higher the priority is.
  highestPriority = builtins.foldl' (acc: d: if d.priority < acc then d.priority else acc) 9999;

  mergePrioritised =
    loc: type: defs:
    let
      best = lib.highestPriority defs;
      kept = builtins.filter (d: d.priority == best) defs;
    in
    lib.evalDefinitions loc type (map (d: d.value) (builtins.sort (a: b: a.order < b.order) kept));

  evalDefinitions =
    loc: type: values:
    if builtins.all type.check values then
      type.merge loc values
    else
      throw "option `${showLoc loc}': a definition is not of type ${type.name}";

  evalModules =
    {
      modules,
      specialArgs ? { },
      prefix ? [ ],
    }:
    let
      args = {
        inherit
          lib
          options
          config
          extendModules
          moduleType
          ;
      }
      // specialArgs;
      collected = collect args modules;
      declared = builtins.foldl' (mergeOptions prefix) { } (map (m: m.options) collected);
      definitions = map (m: m.config) collected;
      options = evalTree prefix declared definitions;
      config = valuesOf options;
      unknown = unmatched prefix declared definitions;

      # The same modules and more, evaluated again.
      extendModules =
        {
          modules ? [ ],
          specialArgs ? { },
          prefix ? prefix',
        }:
        lib.evalModules {
          modules = modules' ++ modules;
          specialArgs = specialArgs' // specialArgs;
          inherit prefix;
        };
      modules' = modules;
      specialArgs' = specialArgs;
      prefix' = prefix;

      # Of options whose values are evaluations of these modules.
      moduleType = lib.mkOptionType {
        name = "module";
        check = lib.types.isModule;
        merge =
          loc: defs:
          (extendModules {
            modules = defs;
            prefix = loc;
          }).config;
      };
    in
    {
      inherit options extendModules;
      config =
        if unknown == [ ] then
          config
        else
          throw "these options do not exist in nix/offline: ${builtins.concatStringsSep ", " unknown}";
    };
}
