package main

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

// ringSends is how many sends one system call makes, at the most.
const ringSends = 32

// What is used of Linux's io_uring (io_uring(7), include/uapi/linux/io_uring.h).
const (
	opSend         = 26
	enterGetEvents = 1 << 0

	hasSingleMap     = 1 << 0 // both queues are in one piece of memory
	hasNativeWorkers = 1 << 9 // since Linux 5.12
	ringFeatures     = hasSingleMap | hasNativeWorkers

	ringEntries = 0x10000000 // where the entries to submit are mapped from
)

// ringParams is io_uring_params: what a ring is to be like, and where its parts are.
type ringParams struct {
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

// ring has the kernel make many sends in one system call, none of which waits. It is
// for one goroutine at a time.
type ring struct {
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
	sends    [ringSends]sending // of the volley that has it
}

// openRing makes a ring. It fails where the kernel has none, is too old for it to be
// trusted, or does not allow it.
func openRing() (*ring, error) {
	var p ringParams
	fd, _, errno := syscall.Syscall(unix.SYS_IO_URING_SETUP, ringSends, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("making an io_uring: %w", errno)
	}
	r := &ring{fd: int(fd)}
	if p.features&ringFeatures != ringFeatures || p.completions < ringSends {
		return nil, errors.Join(errors.New("making an io_uring: the kernel is older than Linux 5.12"), r.close())
	}
	if err := r.mapMemory(&p); err != nil {
		return nil, errors.Join(fmt.Errorf("mapping an io_uring: %w", err), r.close())
	}
	return r, nil
}

// mapMemory makes the kernel's memory ours too.
func (r *ring) mapMemory(p *ringParams) (err error) {
	size := p.completing.events + p.completions*uint32(unsafe.Sizeof(completion{}))
	size = max(size, p.submit.array+4*p.submissions)
	if r.queues, err = unix.Mmap(r.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return err
	}
	size = p.submissions * uint32(unsafe.Sizeof(submission{}))
	if r.entries, err = unix.Mmap(r.fd, ringEntries, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
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
func (r *ring) word(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.queues[at])) }

// entry is the place of a submission.
func (r *ring) entry(i uint32) *submission {
	size := uint32(unsafe.Sizeof(submission{}))
	return (*submission)(unsafe.Pointer(&r.entries[i%(uint32(len(r.entries))/size)*size]))
}

// answer is an answer of the kernel's.
func (r *ring) answer(i uint32) completion {
	at := r.answers + i&r.mask*uint32(unsafe.Sizeof(completion{}))
	return *(*completion)(unsafe.Pointer(&r.queues[at]))
}

// send makes up to ringSends sends and notes what came of each. What the kernel did
// not even try counts as a socket that took nothing.
func (r *ring) send(sends []sending) {
	first := *r.submit
	for i := range sends {
		s := &sends[i]
		*r.entry(first + uint32(i)) = submission{
			op: opSend, fd: int32(s.to.fd), length: uint32(len(s.line)), number: uint64(i),
			address:   uint64(uintptr(unsafe.Pointer(unsafe.SliceData(s.line)))),
			sendFlags: syscall.MSG_NOSIGNAL | syscall.MSG_DONTWAIT,
		}
	}
	atomic.StoreUint32(r.submit, first+uint32(len(sends)))
	// No send waits, so the call is over in microseconds: see tryWrite.
	_, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(len(sends)), 0, 0, 0, 0)
	taken := atomic.LoadUint32(r.taken) - first
	r.broken = errno != 0 && errno != syscall.EINTR || taken != uint32(len(sends))
	atomic.StoreUint32(r.submit, first+taken) // the others are not to be sent later
	r.collect(sends, taken)
	runtime.KeepAlive(sends) // the kernel read what is in it
}

// collect notes the answers to so many sends.
func (r *ring) collect(sends []sending, count uint32) {
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
			sends[a.number].took = int(a.result)
		} else {
			sends[a.number].err = sendError(syscall.Errno(-a.result))
		}
		atomic.StoreUint32(r.seen, seen)
	}
}

// close gives everything back.
func (r *ring) close() error {
	var err error
	for _, memory := range [][]byte{r.queues, r.entries} {
		if memory != nil {
			err = errors.Join(err, unix.Munmap(memory))
		}
	}
	err = errors.Join(err, unix.Close(r.fd))
	r.fd, r.queues, r.entries = noSocket, nil, nil
	return err
}

// ringSet is the server's rings. A nil one has none.
type ringSet struct {
	mu     sync.Mutex
	free   []*ring
	closed bool
}

// openRings makes so many rings. Where it fails, the set has those that it made before:
// none, as a rule. Who finds no ring sends without.
func openRings(count int) (*ringSet, error) {
	rings := &ringSet{}
	for range count {
		r, err := openRing()
		if err != nil {
			return rings, err
		}
		rings.free = append(rings.free, r)
	}
	return rings, nil
}

// lend gives a ring that nobody uses; nil: there is none.
func (rs *ringSet) lend() *ring {
	if rs == nil {
		return nil
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if len(rs.free) == 0 {
		return nil
	}
	r := rs.free[len(rs.free)-1]
	rs.free = rs.free[:len(rs.free)-1]
	return r
}

// giveBack takes a ring back that was lent, unless it is broken.
func (rs *ringSet) giveBack(r *ring) {
	if r == nil {
		return
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.closed || r.broken {
		_ = r.close() // nothing depends on it
		return
	}
	rs.free = append(rs.free, r)
}

// close closes the rings, those that are lent when they come back.
func (rs *ringSet) close() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.closed = true
	for _, r := range rs.free {
		_ = r.close()
	}
	rs.free = nil
}
