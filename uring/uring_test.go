package uring

import (
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
)

// oneRing is a set with a ring; it skips the test where the kernel has none.
func oneRing(t *testing.T) *Set {
	rings, err := Open(1)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(rings.Close)
	return rings
}

// pair is a TCP connection: the descriptor of its near end, and its far end.
func pair(t *testing.T) (fd int, far net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if far, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		far.Close()
		near.Close()
	})
	raw, err := near.(*net.TCPConn).SyscallConn()
	if err == nil {
		err = raw.Control(func(number uintptr) { fd = int(number) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd, far
}

// TestSend: for every number of sends, and more of them than a ring has places, each
// socket gets its own bytes, in order.
func TestSend(t *testing.T) {
	rings := oneRing(t)
	r := rings.Lend()
	defer rings.GiveBack(r)
	var sends [Max]Send
	var far [Max]net.Conn
	for i := range sends {
		sends[i].FD, far[i] = pair(t)
	}
	var want [Max]strings.Builder
	for round := range 2*Max + 3 {
		some := sends[:1+round%Max]
		for i := range some {
			some[i].Data = fmt.Appendf(nil, "%d.%d ", i, round)
			want[i].Write(some[i].Data)
		}
		if !r.Send(some) {
			t.Fatal("the ring is broken")
		}
		for _, s := range some {
			if s.N != len(s.Data) || s.Err != 0 {
				t.Fatalf("a socket took %d of %d bytes (%v)", s.N, len(s.Data), s.Err)
			}
		}
	}
	for i := range far {
		got := make([]byte, want[i].Len())
		if _, err := io.ReadFull(far[i], got); err != nil || string(got) != want[i].String() {
			t.Errorf("socket %d got %q (%v), want %q", i, got, err, want[i].String())
		}
	}
}

// TestSendFails: a socket that takes nothing more, one that is closed for writing, and
// one that takes everything, in one call: none waits, and each has its own answer.
func TestSendFails(t *testing.T) {
	rings := oneRing(t)
	r := rings.Lend()
	defer rings.GiveBack(r)
	full, _ := pair(t)
	ended, _ := pair(t)
	well, _ := pair(t)
	if err := syscall.Shutdown(ended, syscall.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 64<<10)
	for {
		sends := []Send{{FD: full, Data: piece}, {FD: ended, Data: piece}, {FD: well, Data: []byte("x")}}
		if !r.Send(sends) {
			t.Fatal("the ring is broken")
		}
		if sends[1].Err != syscall.EPIPE || sends[2].N != 1 || sends[2].Err != 0 {
			t.Fatalf("got %v and %d, %v", sends[1].Err, sends[2].N, sends[2].Err)
		}
		if sends[0].N == 0 {
			if sends[0].Err != syscall.EAGAIN {
				t.Errorf("a full socket: %v", sends[0].Err)
			}
			return
		}
	}
}

// TestRingsEnd: rings that are lent when the set is closed are closed when they come
// back, and so is a broken one; then there is none to lend.
func TestRingsEnd(t *testing.T) {
	t.Parallel()
	rings := oneRing(t)
	r := rings.Lend()
	if rings.Lend() != nil {
		t.Error("a ring was lent twice")
	}
	rings.GiveBack(r)
	if rings.Lend() != r {
		t.Error("a ring that came back is not lent again")
	}
	rings.Close()
	rings.GiveBack(r)
	if r.fd != -1 {
		t.Error("a ring that came back late was left open")
	}
	if rings.Lend() != nil {
		t.Error("a closed set lends")
	}
	var none *Set
	if none.Lend() != nil {
		t.Error("no set lends")
	}
}
