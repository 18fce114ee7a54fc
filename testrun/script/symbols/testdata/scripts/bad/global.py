nobody.succeed("true")
