package main

import (
	"sync"
	"syscall"
	"unsafe"

	"homeroom/uring"

	"golang.org/x/sys/unix"
)

// leastVolley is how many writes make it worth it to have a ring make them.
const leastVolley = 3

// volley is the writes of a round on their way to the members' sockets: many in one
// system call where the kernel can do that, and none that waits. It is lent to a round.
type volley struct {
	rings *uring.Set
	ring  *uring.Ring // lent; nil: each write is a system call of its own

	// the writes that it holds: their sockets are ours until the outboxes have been told
	// what came of them
	count int
	sends [uring.Max]uring.Send
	to    [uring.Max]*outbox
}

var volleys = sync.Pool{New: func() any { return new(volley) }}

// newVolley makes one for writes to so many members.
func newVolley(rings *uring.Set, members int) *volley {
	v := volleys.Get().(*volley)
	if members >= leastVolley {
		v.rings, v.ring = rings, rings.Lend()
	}
	return v
}

// add takes a write into the volley. What is in it goes out when it is full.
func (v *volley) add(to *outbox, line []byte) {
	if v.ring == nil {
		n, err := to.tryWrite(line)
		to.tried(line, n, err)
		return
	}
	v.to[v.count] = to
	v.sends[v.count] = uring.Send{FD: to.fd, Data: line}
	if v.count++; v.count == uring.Max {
		v.fire()
	}
}

// fire makes the writes that are in the volley and tells the outboxes. A ring that does
// not work is not used again.
func (v *volley) fire() {
	sends, to := v.sends[:v.count], v.to[:v.count]
	v.count = 0
	together := len(sends) >= leastVolley
	working := !together || v.ring.Send(sends)
	for i := range sends {
		s := &sends[i]
		n, err := s.N, sendError(s.Err)
		if !together {
			n, err = to[i].tryWrite(s.Data)
		}
		to[i].tried(s.Data, n, err)
	}
	clear(sends) // or the volley would keep the lines and the outboxes
	clear(to)
	if !working {
		v.giveBack()
	}
}

// giveBack gives the ring back.
func (v *volley) giveBack() {
	v.rings.GiveBack(v.ring)
	v.ring = nil
}

// end fires what is left.
func (v *volley) end() {
	v.fire()
	v.giveBack()
	v.rings = nil
	volleys.Put(v)
}

// sendNow writes what a socket takes at once, without setting a deadline. The
// socket does not block, so the one system call is over in microseconds: RawSyscall
// spares the scheduler's accounts of calls that might take long, a tenth of its cost;
// sendto spares what write does for files, and the descriptor what net does for
// calls that wait. (A 32-bit Intel kernel before 4.3 has no sendto; there the writer
// serves everybody.)
func sendNow(fd int, b []byte) (int, error) {
	first := unsafe.Pointer(unsafe.SliceData(b))
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(first), uintptr(len(b)), syscall.MSG_NOSIGNAL, 0, 0)
	if errno == 0 {
		return int(n), nil
	}
	return 0, sendError(errno)
}

// sendError is what an outbox hears of a send that failed: nothing where the socket
// only takes nothing now.
func sendError(errno syscall.Errno) error {
	switch errno {
	case 0, syscall.EAGAIN, syscall.EINTR, syscall.ENOSYS:
		return nil
	}
	return errno
}
