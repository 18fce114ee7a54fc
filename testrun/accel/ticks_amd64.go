package accel

func timeStampCounter() uint64
