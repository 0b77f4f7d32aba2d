package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"homeroom/test/wire"
)

// TestMain fails a run that leaves goroutines behind.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := leftGoroutines(); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines left after all tests:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leftGoroutines is the stacks of the goroutines that run this program's code,
// after those that are about to end had the time to.
func leftGoroutines() string {
	deadline := time.Now().Add(5 * time.Second)
	for {
		buf := make([]byte, 1<<20)
		buf = buf[:runtime.Stack(buf, true)]
		var left []string
		for i, stack := range strings.Split(string(buf), "\n\n") {
			if i > 0 && strings.Contains(stack, "homeroom.") && !strings.Contains(stack, "homeroom.TestMain") {
				left = append(left, stack)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return strings.Join(left, "\n\n")
		}
		runtime.Gosched()
	}
}

// testConfig is the defaults with a fresh folder, a free port, cheap hashing and
// the limits off that would slow a test down.
func testConfig(t testing.TB) config {
	cfg := defaultConfig()
	cfg.Server.Data = t.TempDir()
	cfg.Server.Listen = "127.0.0.1:0"
	cfg.Web.Listen = ""
	cfg.Auth.Iterations, cfg.Auth.PasswordMin = 16, 0
	cfg.Limits.CommandsPerSecond = 0
	cfg.Limits.ConnectionsPerIP = 0
	cfg.Limits.WaitingPerIP = 0
	cfg.Limits.Waiting = 0
	return cfg
}

// testServer is a server in this process, on a port of its own.
type testServer struct {
	*server
	wire.Target
	accepting chan error
	stopped   bool
}

// startServer starts a server with testConfig, changed by change, and stops it
// when the test ends.
func startServer(t testing.TB, change ...func(*config)) *testServer {
	t.Helper()
	cfg := testConfig(t)
	for _, c := range change {
		c(&cfg)
	}
	return startWith(t, cfg)
}

// startWith starts a server with these settings: on an earlier one's folder, say.
func startWith(t testing.TB, cfg config) *testServer {
	t.Helper()
	srv, err := newServer(cfg, nil)
	if err != nil {
		t.Fatalf("starting the server: %v", err)
	}
	if err := srv.listen(context.Background()); err != nil {
		t.Fatalf("listening: %v", err)
	}
	ts := &testServer{server: srv, Target: wire.Target{T: t, Addr: srv.doorway.listener.Addr().String()}, accepting: make(chan error, 1)}
	go func() { ts.accepting <- srv.accept() }()
	t.Cleanup(ts.stopNow)
	return ts
}

// stopNow stops the server as SIGTERM does; a second call does nothing.
func (ts *testServer) stopNow() {
	if ts.stopped {
		return
	}
	ts.stopped = true
	if err := ts.stop("the server is stopping"); err != nil {
		ts.T.Errorf("stopping the server: %v", err)
	}
	if err := <-ts.accepting; err != nil {
		ts.T.Errorf("accepting: %v", err)
	}
}

// restart stops the server and starts another one on its folder.
func (ts *testServer) restart() *testServer {
	ts.T.Helper()
	ts.stopNow()
	return startWith(ts.T, ts.cfg)
}

// admin makes an account that is an administrator, connects and logs in to it.
func (ts *testServer) admin(name string) *wire.Client {
	ts.T.Helper()
	c := ts.Member(name)
	if err := ts.setRole(ts.findAccount(name), true); err != nil {
		ts.T.Fatalf("making %s an administrator: %v", name, err)
	}
	return c
}

// dialHost connects to the server's control socket and takes the hello line.
func (ts *testServer) dialHost() *wire.Client {
	ts.T.Helper()
	path, release, err := socketPath(ts.cfg.Server.Data)
	if err != nil {
		ts.T.Fatal(err)
	}
	defer release()
	conn, err := net.Dial("unix", path)
	if err != nil {
		ts.T.Fatalf("connecting to the control socket: %v", err)
	}
	return wire.Greeted(ts.T, conn)
}

// relogin is member for an account that may exist already.
func (ts *testServer) relogin(name string) *wire.Client {
	ts.T.Helper()
	if ts.findAccount(name) == nil {
		return ts.Member(name)
	}
	c := ts.Dial()
	c.Ask("#login regd "+name+" pw", "@status 0")
	return c
}

// tlsAddr is where a server listens with TLS.
func (ts *testServer) tlsAddr() string { return ts.doorway.tlsListener.Addr().String() }

// overTLS connects with TLS and takes the hello line.
func (ts *testServer) overTLS(change ...func(*tls.Config)) *wire.Client {
	ts.T.Helper()
	config := wire.TLS(ts.T, ts.cfg.Server.Data)
	for _, c := range change {
		c(config)
	}
	conn, err := tls.Dial("tcp", ts.tlsAddr(), config)
	if err != nil {
		ts.T.Fatalf("connecting with TLS: %v", err)
	}
	return wire.Greeted(ts.T, conn)
}

// dialRaw connects to the TLS port without TLS.
func (ts *testServer) dialRaw() *wire.Client {
	ts.T.Helper()
	return wire.Target{T: ts.T, Addr: ts.tlsAddr()}.Connect()
}

// programSettings is a settings file for a program that tests drive as hard as
// they can.
const programSettings = `
[server]
listen = "127.0.0.1:0"
[limits]
connections_per_ip = 0
waiting = 0
waiting_per_ip = 0
commands_per_second = 0
logins_per_minute = 0
guesses_per_account = 0
hashes_per_minute = 0
rooms = 0
groups = 0
messages = 0
[expiry]
room = "8760h"
[auth]
password_min = 0
iterations = 16
[web]
listen = ""
`

// writeSettings writes a settings file and returns where it is.
func writeSettings(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chat.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
