@polling_condition
def healthy() -> bool:
    return True


healthy.await_it()
