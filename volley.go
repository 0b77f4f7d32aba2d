package main

// leastVolley is how many writes make it worth it to have a ring make them.
const leastVolley = 3

// sending is one write of a volley.
type sending struct {
	to   *outbox // its socket is ours until it has heard what came of the write
	line []byte
	took int // what the socket took
	err  error
}

// volley is the writes of a round on their way to the members' sockets: many in one
// system call where the kernel can do that, and none that waits.
type volley struct {
	ring  *ring // lent; nil: each write is a system call of its own
	sends []sending
}

// newVolley makes one for writes to so many members.
func newVolley(rings *ringSet, members int) volley {
	if members < leastVolley {
		return volley{}
	}
	r := rings.lend()
	if r == nil {
		return volley{}
	}
	return volley{ring: r, sends: r.sends[:0]}
}

// add takes a write into the volley. What is in it goes out when it is full.
func (v *volley) add(to *outbox, line []byte) {
	if v.ring == nil {
		n, err := to.tryWrite(line)
		to.tried(line, n, err)
		return
	}
	v.sends = append(v.sends, sending{to: to, line: line})
	if len(v.sends) == ringSends {
		v.fire()
	}
}

// fire makes the writes that are in the volley and tells the outboxes.
func (v *volley) fire() {
	if len(v.sends) >= leastVolley && !v.ring.broken {
		v.ring.send(v.sends)
	} else {
		for i := range v.sends {
			s := &v.sends[i]
			s.took, s.err = s.to.tryWrite(s.line)
		}
	}
	for _, s := range v.sends {
		s.to.tried(s.line, s.took, s.err)
	}
	clear(v.sends) // or the ring would keep the outboxes
	v.sends = v.sends[:0]
}

// end fires what is left and gives the ring back.
func (v *volley) end(rings *ringSet) {
	v.fire()
	rings.giveBack(v.ring)
}
