machine.succeeds("true")
