log.error("this is wrong")
