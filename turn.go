package main

// turn is held by one goroutine at a time, like a mutex, and unlike one for as long
// as the store works: it keeps changes of one kind in order, and no lock that
// others wait for is held meanwhile.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn and returns what gives it on: defer t.take()().
func (t turn) take() (release func()) {
	t <- struct{}{}
	return func() { <-t }
}
