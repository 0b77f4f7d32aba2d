package main

import (
	"net/netip"
	"runtime"
	"slices"
	"sync"
)

// hashQueue is how many may wait to have a password hashed, for each core.
const hashQueue = 16

// hasher lets a few passwords be hashed at a time, one a core at most and a core
// left over where there are several; a few more wait, and it refuses the rest,
// so that logins never take the machine away from the chat. Those who wait are
// served by turns, an address each, so that one address cannot have it for itself.
type hasher struct {
	most int // that wait

	mu     sync.Mutex
	free   int          // cores
	queue  []*hashTurn  // who waits; oldest first
	served netip.Prefix // whose turn was the last one
}

// hashTurn is the wait of somebody from an address.
type hashTurn struct {
	from netip.Prefix
	come chan error // gets nil when it is its turn, or 3006
}

func newHasher() *hasher {
	cores := max(1, min(runtime.NumCPU(), runtime.GOMAXPROCS(0))-1)
	return &hasher{most: cores * hashQueue, free: cores}
}

// do runs hash when a core is free. It fails with 3006 when too many wait.
func (h *hasher) do(from netip.Prefix, hash func()) error {
	if turn := h.begin(from); turn != nil {
		if err := <-turn.come; err != nil {
			return err
		}
	}
	defer h.end()
	hash()
	return nil
}

// begin takes a core, or a place in the queue; then it returns the turn to wait for.
func (h *hasher) begin(from netip.Prefix) *hashTurn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.free > 0 {
		h.free--
		return nil
	}
	turn := &hashTurn{from: from, come: make(chan error, 1)}
	if len(h.queue) >= h.most && !h.makeRoom(from) {
		turn.come <- fail(statusThrottled)
		return turn
	}
	h.queue = append(h.queue, turn)
	return turn
}

// makeRoom sends away the last one of the address that has the most waiting, if that
// has more than from will have. h.mu is held.
func (h *hasher) makeRoom(from netip.Prefix) bool {
	waiting := map[netip.Prefix]int{}
	for _, turn := range h.queue {
		waiting[turn.from]++
	}
	last := -1
	for i, turn := range h.queue {
		if last < 0 || waiting[turn.from] >= waiting[h.queue[last].from] {
			last = i
		}
	}
	if last < 0 || waiting[h.queue[last].from] <= waiting[from]+1 {
		return false
	}
	h.queue[last].come <- fail(statusThrottled)
	h.queue = slices.Delete(h.queue, last, last+1)
	return true
}

// end gives a core to who has waited longest, of an address that was not the last one
// served if there is any.
func (h *hasher) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) == 0 {
		h.free++
		return
	}
	next := max(0, slices.IndexFunc(h.queue, func(turn *hashTurn) bool { return turn.from != h.served }))
	turn := h.queue[next]
	h.queue = slices.Delete(h.queue, next, next+1)
	h.served = turn.from
	turn.come <- nil
}

// newVerifier hashes a prepared password when it is its turn.
func (h *hasher) newVerifier(from netip.Prefix, password string, rounds int) (v *verifier, err error) {
	if busy := h.do(from, func() { v, err = newVerifier(password, rounds) }); busy != nil {
		return nil, busy
	}
	return v, err
}

// check holds what a user typed against a verifier: 3002, or 3006 when too many
// are at it.
func (h *hasher) check(from netip.Prefix, v *verifier, typed string) error {
	password, err := preparePassword(typed)
	if err != nil {
		password = "" // no password is empty, but the time is spent all the same
	}
	var right bool
	if err := h.do(from, func() { right = v.matches(password) }); err != nil {
		return err
	}
	if !right {
		return fail(statusWrongPassword)
	}
	return nil
}
