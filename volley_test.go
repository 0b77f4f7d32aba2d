package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"homeroom/uring"
)

// oneRing is a set with a ring; it skips the test where the kernel has none.
func oneRing(t *testing.T) *uring.Set {
	rings, err := uring.Open(1)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(rings.Close)
	return rings
}

// tcpMember is an outbox on a TCP connection, and the other end of it.
type tcpMember struct {
	*outbox
	far *net.TCPConn
}

// newTCPMember makes one that hears a talk.
func newTCPMember(t *testing.T, room *talk) *tcpMember {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	m := &tcpMember{newOutbox(newNetLink(near), new(atomic.Int64)), far.(*net.TCPConn)}
	room.join(m.outbox)
	t.Cleanup(func() {
		far.Close()
		m.close()
		near.Close()
	})
	return m
}

// TestVolley: members of a room get each line once and whole, for every number of
// them around what a volley and a system call hold, with a ring and without one.
func TestVolley(t *testing.T) {
	t.Parallel()
	for _, with := range []bool{true, false} {
		for _, members := range []int{1, leastVolley - 1, leastVolley, uring.Max - 1, uring.Max, uring.Max + 1, 3*uring.Max + 1} {
			t.Run(fmt.Sprintf("ring_%t/%d", with, members), func(t *testing.T) {
				t.Parallel()
				room := &talk{}
				if with {
					room.rings = oneRing(t)
				}
				var all []*tcpMember
				for range members {
					all = append(all, newTCPMember(t, room))
				}
				var want strings.Builder
				for i := range 2*uring.Max + 3 { // more sends than a ring has places
					line := eventFrame("line", num(int64(i)))
					want.Write(line.show(lookProgram))
					room.say(line)
					room.flush()
				}
				for i, m := range all {
					got := make([]byte, want.Len())
					if _, err := io.ReadFull(m.far, got); err != nil || string(got) != want.String() {
						t.Fatalf("member %d got %q (%v)", i, got, err)
					}
					if n := m.written.Load(); n != int64(want.Len()) {
						t.Errorf("member %d: %d bytes were counted, want %d", i, n, want.Len())
					}
				}
			})
		}
	}
}

// TestVolleyMixed: in one volley a socket that takes all, one that takes a part, one
// that takes nothing and one that is broken: each ends as with a write of its own, and
// nobody else is touched by it.
func TestVolleyMixed(t *testing.T) {
	t.Parallel()
	for _, with := range []bool{true, false} {
		t.Run(fmt.Sprintf("ring_%t", with), func(t *testing.T) {
			t.Parallel()
			room := &talk{}
			if with {
				room.rings = oneRing(t)
			}
			all := []*tcpMember{newTCPMember(t, room), newTCPMember(t, room), newTCPMember(t, room), newTCPMember(t, room)}
			slow, gone := all[1], all[2]
			if err := gone.link.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			line := eventFrame(strings.Repeat("x", mostUnheard/2))
			piece := line.show(lookProgram)
			if err := slow.link.(*netLink).conn.(*net.TCPConn).SetWriteBuffer(len(piece)); err != nil {
				t.Fatal(err)
			}
			said := 0
			for before := int64(-1); slow.written.Load() != before; { // until its socket takes nothing
				before = slow.written.Load()
				room.say(line)
				room.flush()
				said += len(piece)
				for _, m := range []*tcpMember{all[0], all[3]} {
					if _, err := io.ReadFull(m.far, make([]byte, len(piece))); err != nil {
						t.Fatal(err)
					}
				}
				if said > 64<<20 {
					t.Fatal("the socket of who does not read takes everything")
				}
			}
			if !gone.failed.Load() || all[0].failed.Load() || all[3].failed.Load() || slow.failed.Load() {
				t.Error("a broken socket is not noticed, or another one is")
			}
			if n, err := io.ReadFull(slow.far, make([]byte, said)); err != nil {
				t.Errorf("who read late got %d of %d bytes (%v)", n, said, err)
			}
		})
	}
}
