package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"homeroom/store"
	"homeroom/test/storetest"
	"homeroom/test/wire"
)

// TestNotifyElsewhere: what is for another process, or makes no sense, is left
// alone.
func TestNotifyElsewhere(t *testing.T) {
	for _, test := range []struct {
		socket, usec, pid string
		want              time.Duration
	}{
		{"", "1000000", "", 0}, {"/run/x", "", "", 0}, {"/run/x", "1000000", "", time.Second}, {"/run/x", "-5", "", 0},
		{"/run/x", "soon", "", 0}, {"/run/x", "1000000", strconv.Itoa(os.Getpid()), time.Second}, {"/run/x", "1000000", "1", 0},
	} {
		t.Setenv("NOTIFY_SOCKET", test.socket)
		t.Setenv("WATCHDOG_USEC", test.usec)
		t.Setenv("WATCHDOG_PID", test.pid)
		if got := newNotifier().watchdog; got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

// hungStore is a store whose writer does not answer.
type hungStore struct {
	store.Store
	asked, release chan struct{}
}

func (s hungStore) Heartbeat() {
	s.asked <- struct{}{}
	<-s.release
}

// TestWatchdogStarves: nothing is told while the writer hangs, or the port does
// not answer.
func TestWatchdogStarves(t *testing.T) {
	m := wire.NewManager(t, filepath.Join(t.TempDir(), "notify"))
	n := notifier{socket: m.Name, watchdog: 30 * time.Millisecond}
	srv := startServer(t)
	hung := hungStore{srv.store, make(chan struct{}), make(chan struct{})}
	watched := &server{store: hung, doorway: doorway{listener: srv.doorway.listener}}
	stop, over := make(chan struct{}), make(chan struct{})
	go func() {
		watched.feedWatchdog(n, stop)
		close(over)
	}()
	<-hung.asked
	n.tell("the test") // what comes before it came too early
	if got := m.Heard(); got != "the test" {
		t.Fatalf("while the writer hangs: %q", got)
	}
	close(hung.release)
	if got := m.Heard(); got != "WATCHDOG=1" {
		t.Fatalf("when the writer answers: %q", got)
	}
	close(stop)
	for {
		select {
		case <-hung.asked:
			continue
		case <-over:
		}
		break
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if err := pingLine(closed.Addr(), time.Second); err == nil || !strings.Contains(err.Error(), "own port") {
		t.Errorf("a port that nobody serves: %v", err)
	}
}

// TestHeartbeatWritesNothing: a heartbeat leaves the database's files as they are.
func TestHeartbeatWritesNothing(t *testing.T) {
	srv := startServer(t)
	srv.Guest("alice").Ask("#createroom den", "@status 0")
	before := storetest.FolderContent(t, srv.cfg.Server.Data)
	for range 10 {
		if err := srv.prove(wire.Patience); err != nil {
			t.Fatal(err)
		}
	}
	if string(storetest.FolderContent(t, srv.cfg.Server.Data)) != string(before) {
		t.Error("heartbeats change what is on disk")
	}
}
