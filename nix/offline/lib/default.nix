# The part of nixpkgs' lib that nix/, the examples and this folder use, under
# the same names and with the same meaning.
let
  lib = {
    inherit (builtins)
      all
      any
      attrNames
      attrValues
      concatLists
      concatMap
      concatStringsSep
      elem
      filter
      foldl'
      genList
      hasAttr
      head
      intersectAttrs
      isAttrs
      isBool
      isInt
      isList
      isPath
      isString
      length
      listToAttrs
      map
      mapAttrs
      match
      removeAttrs
      replaceStrings
      stringLength
      substring
      tail
      throw
      toJSON
      ;

    # Attribute sets.
    nameValuePair = name: value: { inherit name value; };
    genAttrs = names: f: builtins.listToAttrs (map (n: lib.nameValuePair n (f n)) names);
    mapAttrsToList = f: set: map (n: f n set.${n}) (builtins.attrNames set);
    mapAttrs' = f: set: builtins.listToAttrs (lib.mapAttrsToList f set);
    filterAttrs =
      pred: set:
      builtins.listToAttrs (
        builtins.concatMap (
          n: if pred n set.${n} then [ (lib.nameValuePair n set.${n}) ] else [ ]
        ) (builtins.attrNames set)
      );
    optionalAttrs = cond: set: if cond then set else { };
    recursiveUpdate =
      a: b:
      a
      // builtins.mapAttrs (
        n: v: if builtins.isAttrs v && builtins.isAttrs (a.${n} or null) then lib.recursiveUpdate a.${n} v else v
      ) b;
    attrByPath =
      path: default: set:
      if path == [ ] then
        set
      else if builtins.isAttrs set && set ? ${builtins.head path} then
        lib.attrByPath (builtins.tail path) default set.${builtins.head path}
      else
        default;

    # Lists.
    optional = cond: x: if cond then [ x ] else [ ];
    optionals = cond: xs: if cond then xs else [ ];
    toList = x: if builtins.isList x then x else [ x ];
    flatten = x: if builtins.isList x then builtins.concatMap lib.flatten x else [ x ];
    range = first: last: if first > last then [ ] else builtins.genList (n: first + n) (last - first + 1);
    imap0 = f: xs: builtins.genList (n: f n (builtins.elemAt xs n)) (builtins.length xs);
    imap1 = f: lib.imap0 (n: f (n + 1));
    unique = builtins.foldl' (acc: x: if builtins.elem x acc then acc else acc ++ [ x ]) [ ];
    reverseList =
      xs:
      let
        n = builtins.length xs;
      in
      builtins.genList (i: builtins.elemAt xs (n - 1 - i)) n;
    sort = builtins.sort;
    naturalSort = builtins.sort (a: b: a < b);

    # Strings.
    optionalString = cond: s: if cond then s else "";
    versionAtLeast = a: b: builtins.compareVersions a b >= 0;
    concatStrings = builtins.concatStringsSep "";
    concatMapStrings = f: xs: lib.concatStrings (map f xs);
    concatMapStringsSep = sep: f: xs: builtins.concatStringsSep sep (map f xs);
    concatLines = lib.concatMapStrings (s: s + "\n");
    hasPrefix = prefix: s: builtins.substring 0 (builtins.stringLength prefix) s == prefix;
    hasSuffix =
      suffix: s:
      let
        n = builtins.stringLength s;
        k = builtins.stringLength suffix;
      in
      n >= k && builtins.substring (n - k) k s == suffix;
    removePrefix =
      prefix: s:
      if lib.hasPrefix prefix s then builtins.substring (builtins.stringLength prefix) (-1) s else s;
    boolToString = b: if b then "true" else "false";
    removeSuffix =
      suffix: s:
      if lib.hasSuffix suffix s then
        builtins.substring 0 (builtins.stringLength s - builtins.stringLength suffix) s
      else
        s;
    escapeShellArg =
      arg:
      let
        s = toString arg;
      in
      if builtins.match "[[:alnum:],._+:@%/-]+" s != null then
        s
      else
        "'" + builtins.replaceStrings [ "'" ] [ "'\\''" ] s + "'";
    escapeShellArgs = lib.concatMapStringsSep " " lib.escapeShellArg;
    makeSearchPath = dir: paths: lib.concatMapStringsSep ":" (p: "${p}/${dir}") (builtins.filter (p: p != null) paths);
    makeBinPath = lib.makeSearchPath "bin";
    fixedWidthString =
      width: filler: s:
      let
        n = builtins.stringLength s;
      in
      if n >= width then s else lib.fixedWidthString width filler (filler + s);
    toHexString =
      n:
      let
        digit = builtins.elemAt [ "0" "1" "2" "3" "4" "5" "6" "7" "8" "9" "A" "B" "C" "D" "E" "F" ];
        rest = n / 16;
      in
      (if rest == 0 then "" else lib.toHexString rest) + digit (n - rest * 16);

    # Derivations and functions.
    isFunction = f: builtins.isFunction f || builtins.isAttrs f && f ? __functor;
    functionArgs = f: f.__functionArgs or (builtins.functionArgs f);
    isDerivation = x: builtins.isAttrs x && (x.type or null) == "derivation";
    getExe = drv: lib.getExe' drv (drv.meta.mainProgram or drv.pname or drv.name);
    getExe' = drv: name: "${drv}/bin/${name}";
    getBin = drv: drv;
    # What f returns, with `override` to call it again with other arguments.
    makeOverridable =
      f: args:
      let
        result = f args;
      in
      if builtins.isAttrs result then
        result
        // {
          override =
            change: lib.makeOverridable f (args // (if builtins.isFunction change then change args else change));
        }
      else
        result;
    callPackageWith =
      scope: f: args:
      let
        fn = if builtins.isFunction f then f else import f;
      in
      lib.makeOverridable fn (builtins.intersectAttrs (builtins.functionArgs fn) scope // args);
    # An overlay after another; the second sees what the first makes.
    composeExtensions =
      f: g: final: prev:
      let
        first = f final prev;
      in
      first // g final (prev // first);
    # A function of its own result, changed by an overlay.
    extends =
      overlay: f: final:
      let
        prev = f final;
      in
      prev // overlay final prev;
    # `attrs`, `prev: attrs` and `final: prev: attrs` as the last of them.
    toExtension =
      f:
      if builtins.isFunction f then
        final: prev:
        let
          once = f prev;
        in
        if builtins.isFunction once then f final prev else once
      else
        _: _: f;
    throwIfNot = cond: msg: x: if cond then x else throw msg;
    warnIf = cond: msg: x: if cond then builtins.trace "warning: ${msg}" x else x;
    # What is known without evaluating the derivation stays cheap to ask for.
    lazyDerivation =
      {
        derivation,
        meta ? { },
        passthru ? { },
      }:
      passthru
      // {
        type = "derivation";
        inherit meta passthru;
        inherit (derivation)
          name
          system
          drvPath
          outPath
          out
          outputName
          outputs
          drvAttrs
          ;
      };
    licenses.mit = {
      shortName = "mit";
      spdxId = "MIT";
      free = true;
    };
    platforms.linux = [
      "x86_64-linux"
      "aarch64-linux"
    ];

    inherit (import ./types.nix lib) types mkOptionType;
  }
  // import ./modules.nix lib;
in
lib
