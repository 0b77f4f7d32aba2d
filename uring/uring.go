// Package uring makes many sends to sockets in one system call, none of which waits, by
// Linux's io_uring.
//
// A Set has a fixed number of rings, opened at the start. A goroutine borrows one with
// Lend, fills in up to Max of type Send, has Ring.Send make them, reads what came of each,
// and gives the ring back. Nothing depends on it: where the kernel has no io_uring, is
// older than 5.12, or does not allow it (as in most containers), Open fails, Lend returns
// nil, and the caller makes its sends one by one.
//
// A ring reads the memory of the sends only during the call: every send has
// MSG_DONTWAIT, so the kernel answers it at once.
package uring

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Max is how many sends one system call makes, at the most.
const Max = 32

// Send is one send on a socket.
type Send struct {
	FD   int
	Data []byte
	N    int           // how many bytes the socket took
	Err  syscall.Errno // why it took none; EAGAIN: it takes nothing now
}

// What is used of Linux's io_uring (io_uring(7), include/uapi/linux/io_uring.h).
const (
	opSend         = 26
	enterGetEvents = 1 << 0

	hasSingleMap     = 1 << 0 // both queues are in one piece of memory
	hasNativeWorkers = 1 << 9 // since Linux 5.12
	features         = hasSingleMap | hasNativeWorkers

	mapEntries = 0x10000000 // where the entries to submit are mapped from
)

// params is io_uring_params: what a ring is to be like, and where its parts are.
type params struct {
	submissions, completions, flags, threadCPU, threadIdle, features, workers uint32

	_          [3]uint32
	submit     struct{ head, tail, mask, entries, flags, dropped, array, _ uint32 }
	_          uint64
	completing struct{ head, tail, mask, entries, overflow, events, flags, _ uint32 }
	_          uint64
}

// submission is io_uring_sqe, completion io_uring_cqe.
type submission struct {
	op, flags uint8
	priority  uint16
	fd        int32
	offset    uint64
	address   uint64
	length    uint32
	sendFlags uint32
	number    uint64
	_         [3]uint64
}

type completion struct {
	number uint64
	result int32
	flags  uint32
}

// Ring has the kernel make many sends in one system call, none of which waits. It is for
// one goroutine at a time.
type Ring struct {
	fd       int
	queues   []byte // shared with the kernel
	entries  []byte
	submit   *uint32 // how many were ever submitted
	taken    *uint32 // how many of these the kernel has taken
	answered *uint32 // how many the kernel has answered
	seen     *uint32 // how many answers we have seen
	answers  uint32  // where they begin in queues
	mask     uint32  // of their number
	broken   bool
}

// openRing makes a ring. It fails where the kernel has none, is too old for it to be
// trusted, or does not allow it.
func openRing() (*Ring, error) {
	var p params
	fd, _, errno := syscall.Syscall(unix.SYS_IO_URING_SETUP, Max, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("making an io_uring: %w", errno)
	}
	r := &Ring{fd: int(fd)}
	if p.features&features != features || p.completions < Max {
		return nil, errors.Join(errors.New("making an io_uring: the kernel is older than Linux 5.12"), r.close())
	}
	if err := r.mapMemory(&p); err != nil {
		return nil, errors.Join(fmt.Errorf("mapping an io_uring: %w", err), r.close())
	}
	return r, nil
}

// mapMemory makes the kernel's memory ours too.
func (r *Ring) mapMemory(p *params) (err error) {
	size := p.completing.events + p.completions*uint32(unsafe.Sizeof(completion{}))
	size = max(size, p.submit.array+4*p.submissions)
	if r.queues, err = unix.Mmap(r.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return err
	}
	size = p.submissions * uint32(unsafe.Sizeof(submission{}))
	if r.entries, err = unix.Mmap(r.fd, mapEntries, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return err
	}
	r.submit, r.taken = r.word(p.submit.tail), r.word(p.submit.head)
	r.answered, r.seen = r.word(p.completing.tail), r.word(p.completing.head)
	r.answers, r.mask = p.completing.events, p.completions-1
	for i := range p.submissions { // entry i is always in place i
		*r.word(p.submit.array + 4*i) = i
	}
	return nil
}

// word is a number in the queues.
func (r *Ring) word(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.queues[at])) }

// entry is the place of a submission.
func (r *Ring) entry(i uint32) *submission {
	size := uint32(unsafe.Sizeof(submission{}))
	return (*submission)(unsafe.Pointer(&r.entries[i%(uint32(len(r.entries))/size)*size]))
}

// answer is an answer of the kernel's.
func (r *Ring) answer(i uint32) completion {
	at := r.answers + i&r.mask*uint32(unsafe.Sizeof(completion{}))
	return *(*completion)(unsafe.Pointer(&r.queues[at]))
}

// Send makes up to Max sends and notes what came of each. What the kernel did not even
// try has taken nothing. It reports whether the ring can be used again.
func (r *Ring) Send(sends []Send) bool {
	if r.broken {
		return false
	}
	first := *r.submit
	for i := range sends {
		s := &sends[i]
		s.N, s.Err = 0, 0
		*r.entry(first + uint32(i)) = submission{
			op: opSend, fd: int32(s.FD), length: uint32(len(s.Data)), number: uint64(i),
			address:   uint64(uintptr(unsafe.Pointer(unsafe.SliceData(s.Data)))),
			sendFlags: syscall.MSG_NOSIGNAL | syscall.MSG_DONTWAIT,
		}
	}
	atomic.StoreUint32(r.submit, first+uint32(len(sends)))
	// No send waits, so the call is over in microseconds. RawSyscall spares the
	// scheduler's accounts of calls that might take long.
	_, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(len(sends)), 0, 0, 0, 0)
	taken := atomic.LoadUint32(r.taken) - first
	r.broken = errno != 0 && errno != syscall.EINTR || taken != uint32(len(sends))
	atomic.StoreUint32(r.submit, first+taken) // the others are not to be sent later
	r.collect(sends, taken)
	runtime.KeepAlive(sends) // the kernel read what is in it
	return !r.broken
}

// collect notes the answers to so many sends.
func (r *Ring) collect(sends []Send, count uint32) {
	seen := *r.seen
	for last := seen + count; seen != last; {
		if seen == atomic.LoadUint32(r.answered) { // the kernel does it later; that was not seen yet
			_, _, errno := syscall.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 0, uintptr(last-seen), enterGetEvents, 0, 0)
			if errno != 0 && errno != syscall.EINTR {
				panic(os.NewSyscallError("waiting for sends", errno)) // the kernel reads memory that will be used anew
			}
			continue
		}
		a := r.answer(seen)
		seen++
		if a.result >= 0 {
			sends[a.number].N = int(a.result)
		} else {
			sends[a.number].Err = syscall.Errno(-a.result)
		}
		atomic.StoreUint32(r.seen, seen)
	}
}

// close gives everything back.
func (r *Ring) close() error {
	var err error
	for _, memory := range [][]byte{r.queues, r.entries} {
		if memory != nil {
			err = errors.Join(err, unix.Munmap(memory))
		}
	}
	err = errors.Join(err, unix.Close(r.fd))
	r.fd, r.queues, r.entries = -1, nil, nil
	return err
}

// Set is some rings, to be borrowed. A nil one has none.
type Set struct {
	mu     sync.Mutex
	free   []*Ring
	closed bool
}

// Open makes n rings. Where that fails, the set has those that it made before: none, as
// a rule.
func Open(n int) (*Set, error) {
	s := &Set{}
	for range n {
		r, err := openRing()
		if err != nil {
			return s, err
		}
		s.free = append(s.free, r)
	}
	return s, nil
}

// Lend returns a ring that nobody uses; nil: there is none.
func (s *Set) Lend() *Ring {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 {
		return nil
	}
	r := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return r
}

// GiveBack takes a ring back that was lent, unless it is broken; nil: there was none.
func (s *Set) GiveBack(r *Ring) {
	if r == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || r.broken {
		_ = r.close() // nothing depends on it
		return
	}
	s.free = append(s.free, r)
}

// Close closes the rings, those that are lent when they come back.
func (s *Set) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, r := range s.free {
		_ = r.close()
	}
	s.free = nil
}
