start_all()
if True
    print("x")
