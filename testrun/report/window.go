package report

// window keeps the first and the last items of a sequence of any length. Its
// limits are set before the first item.
type window[T any] struct {
	first, last int // how many to keep of each end; last is at least 1
	head        []T
	tail        []T // a ring once it is full
	next        int // where the ring's oldest item lies
	total       int
}

func (w *window[T]) add(item T) {
	w.total++
	switch {
	case len(w.head) < w.first:
		w.head = append(w.head, item)
	case len(w.tail) < w.last:
		w.tail = append(w.tail, item)
	default:
		w.tail[w.next] = item
		w.next = (w.next + 1) % w.last
	}
}

// ends returns what is kept of the beginning and of the end, in order.
func (w *window[T]) ends() (head, tail []T) {
	return w.head, append(append([]T(nil), w.tail[w.next:]...), w.tail[:w.next]...)
}

// dropped is how many items lay between the ends.
func (w *window[T]) dropped() int {
	return w.total - len(w.head) - len(w.tail)
}
