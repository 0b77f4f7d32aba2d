package main

// The tickers for expiry are one heap and one timer: an entry for each empty room and
// group, for each ban that ends, and one for all messages, set to the next end. A ticker
// for each kind would wake an idle machine for nothing, and be late on top of it. What has
// expired is invisible at once, and deleted when its entry is due: messages 500 at a time,
// so that posts do not wait behind a purge.

import (
	"container/heap"
	"sync"
	"time"
)

// expiry is one thing that can expire: an empty room, an empty group, or the
// message that ends next. It is guarded by the expirer that it is set in.
type expiry struct {
	run   func() // called when it expires, without locks; it may block
	at    instant
	index int // in the heap, from 1; 0: not in it
}

// expirer calls what expires, each at its time on the clock.
type expirer struct {
	clock *clock
	wake  chan struct{} // run is to look at the heap again

	mu   sync.Mutex
	heap expiryHeap
}

// newExpirer returns an expirer in which nothing is set.
func newExpirer(c *clock) *expirer { return &expirer{clock: c, wake: make(chan struct{}, 1)} }

// set sets when e expires, in place of an earlier time; never takes it out.
func (x *expirer) set(e *expiry, at instant) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.move(e, at)
}

// move is set. x.mu is held.
func (x *expirer) move(e *expiry, at instant) {
	switch {
	case at == never && e.index > 0:
		heap.Remove(&x.heap, e.index-1)
	case at == never:
	case e.index > 0:
		e.at = at
		heap.Fix(&x.heap, e.index-1)
	default:
		e.at = at
		heap.Push(&x.heap, e)
	}
	x.nudge()
}

// sooner is set, unless e expires earlier anyway.
func (x *expirer) sooner(e *expiry, at instant) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e.index == 0 || e.at > at {
		x.move(e, at)
	}
}

// nudge makes run look at the heap again. x.mu is held.
func (x *expirer) nudge() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// run calls what is due until stop is closed.
func (x *expirer) run(stop <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-stop: // also where there is always more to delete
			return
		default:
		}
		e, wait := x.due()
		if e != nil {
			e.run()
			continue
		}
		timer.Reset(wait)
		select {
		case <-stop:
			return
		case <-x.wake:
		case <-timer.C:
		}
	}
}

// due takes the first expiry off the heap, or returns how long it has left.
func (x *expirer) due() (*expiry, time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.heap) == 0 {
		return nil, time.Duration(1<<63 - 1)
	}
	first := x.heap[0]
	if left := first.at - x.clock.now(); left > 0 {
		return nil, time.Duration(min(left, 1<<40)) * time.Millisecond
	}
	heap.Pop(&x.heap)
	return first, 0
}

// expiryHeap is a container/heap of expiries, the next one first.
type expiryHeap []*expiry

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return h[i].at < h[j].at }

func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

func (h *expiryHeap) Push(e any) {
	*h = append(*h, e.(*expiry))
	(*h)[len(*h)-1].index = len(*h)
}

func (h *expiryHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.index = 0
	return e
}
