package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"homeroom/test/wire"
)

// fakeManager is a service manager's end of sd_notify.
type fakeManager struct {
	t    *testing.T
	conn *net.UnixConn
	name string
}

func startManager(t *testing.T, name string) *fakeManager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &fakeManager{t, conn, name}
}

// heard is the next state that was told.
func (m *fakeManager) heard() string {
	m.t.Helper()
	buf := make([]byte, 1000)
	_ = m.conn.SetReadDeadline(time.Now().Add(wire.Patience))
	n, err := m.conn.Read(buf)
	if err != nil {
		m.t.Fatalf("the service manager hears nothing: %v", err)
	}
	return string(buf[:n])
}

// TestNotify: the shipped program tells a service manager that it is ready, that
// it is well, and that it stops; in the file system's names and in abstract ones.
func TestNotify(t *testing.T) {
	for what, name := range map[string]string{
		"path": filepath.Join(t.TempDir(), "notify"), "abstract": fmt.Sprintf("@homeroom-test-%d", os.Getpid()),
	} {
		t.Run(what, func(t *testing.T) {
			m := startManager(t, name)
			t.Setenv("NOTIFY_SOCKET", name)
			t.Setenv("WATCHDOG_USEC", "300000")
			p := startProgram(t, buildProgram(t), "-config", writeSettings(t, programSettings), "-data", t.TempDir())
			if got := m.heard(); got != "READY=1" {
				t.Fatalf("first %q", got)
			}
			for range 3 {
				if got := m.heard(); got != "WATCHDOG=1" {
					t.Fatalf("then %q", got)
				}
			}
			if code := p.terminate(); code != exitDone {
				t.Errorf("exit code %d", code)
			}
			for got := m.heard(); got != "STOPPING=1"; got = m.heard() {
				if got != "WATCHDOG=1" {
					t.Fatalf("at the end %q", got)
				}
			}
		})
	}
}

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
	store
	asked, release chan struct{}
}

func (s hungStore) heartbeat() {
	s.asked <- struct{}{}
	<-s.release
}

// TestWatchdogStarves: nothing is told while the writer hangs, or the port does
// not answer.
func TestWatchdogStarves(t *testing.T) {
	m := startManager(t, filepath.Join(t.TempDir(), "notify"))
	n := notifier{socket: m.name, watchdog: 30 * time.Millisecond}
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
	if got := m.heard(); got != "the test" {
		t.Fatalf("while the writer hangs: %q", got)
	}
	close(hung.release)
	if got := m.heard(); got != "WATCHDOG=1" {
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
	before := folderContent(t, srv.cfg.Server.Data)
	for range 10 {
		if err := srv.prove(wire.Patience); err != nil {
			t.Fatal(err)
		}
	}
	if string(folderContent(t, srv.cfg.Server.Data)) != string(before) {
		t.Error("heartbeats change what is on disk")
	}
}
