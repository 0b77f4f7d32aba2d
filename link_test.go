package main

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"homeroom/test/wire"
)

// linkPair is a link over one end of a connection, and the other end.
func linkPair(t *testing.T, network string) (*netLink, net.Conn) {
	t.Helper()
	if network == "pipe" {
		near, far := net.Pipe()
		return newNetLink(near), far
	}
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
	return newNetLink(near), far
}

// TestLinkWakes: a wake before or during a receive ends it, one receive only, and bytes
// that come later are received.
func TestLinkWakes(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"pipe", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			l, far := linkPair(t, network)
			defer far.Close()
			defer l.Close()
			l.Wake()
			if came, err := l.Receive(); !errors.Is(err, errWoken) {
				t.Errorf("woken before: got %q, %v", came, err)
			}
			l.Release()
			l.WakeAt(time.Now().Add(time.Millisecond))
			if came, err := l.Receive(); !errors.Is(err, errWoken) {
				t.Errorf("woken while it waits: got %q, %v", came, err)
			}
			l.Release()
			go io.WriteString(far, "hello")
			if came, err := l.Receive(); string(came) != "hello" || err != nil {
				t.Errorf("after the wakes: got %q, %v", came, err)
			}
			l.Release()
			far.Close()
			if came, err := l.Receive(); !errors.Is(err, io.EOF) {
				t.Errorf("at the end: got %q, %v", came, err)
			}
			l.Release()
		})
	}
}

// TestLinkStalls: a write that the other end does not take says so, and takes it back
// when it does; past the last moment, of which the earliest holds, it fails.
func TestLinkStalls(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"pipe", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			l, far := linkPair(t, network)
			defer far.Close()
			defer l.Close()
			stalls := make(chan bool, 100)
			l.OnStall(func(stalled bool) { stalls <- stalled })
			const many = 16 << 20 // more than the kernel has room for
			written := make(chan error, 1)
			go func() {
				_, err := l.Write(make([]byte, many))
				written <- err
			}()
			if stalled := <-stalls; !stalled {
				t.Error("not stalled, and nothing was read")
			}
			if n, err := io.CopyN(io.Discard, far, many); err != nil {
				t.Fatalf("read %d bytes: %v", n, err)
			}
			if err := <-written; err != nil || <-stalls {
				t.Errorf("the write failed (%v), or is still stalled", err)
			}
			l.EndBy(time.Unix(1, 0))
			l.EndBy(time.Now().Add(wire.Patience))
			if _, err := l.Write(make([]byte, many)); err == nil {
				t.Error("a write past the last moment did not fail")
			}
		})
	}
}
