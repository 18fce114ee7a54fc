machine.suceed("true")
