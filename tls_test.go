package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"homeroom/test/wire"
)

// withTLS turns TLS on, on a free port.
func withTLS(cfg *config) { cfg.TLS.Listen = "127.0.0.1:0" }

// TestTLS: both versions, the certificate's names, and people with and without
// TLS in one room.
func TestTLS(t *testing.T) {
	t.Parallel()
	srv := startServer(t, withTLS)
	plain := srv.Guest("plain")
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		for _, host := range []string{"127.0.0.1", "localhost", "::1"} {
			c := srv.overTLS(func(c *tls.Config) { c.MinVersion, c.MaxVersion, c.ServerName = version, version, host })
			c.Ask("#login anon sealed", "@status 0")
			c.Ask("#sendto plain hello", "@status 0")
			plain.Expect(`@mess #sendto sealed "hello"`)
			plain.Ask("#broadcast to all", `@mess #broadcast plain "to all"`, "@status 0")
			c.Expect(`@mess #broadcast plain "to all"`)
			c.Send("#help")
			if got := c.Read(); !strings.HasPrefix(got, "@ret #help ") {
				t.Errorf("TLS %s: got %q", name, got)
			}
			c.Barrier()
			c.Send("#quit")
			c.ClosedWell("@status 0")
		}
	}
}

// TestTLSRefuses: old versions, ciphers without forward secrecy, and such as can
// be attacked.
func TestTLSRefuses(t *testing.T) {
	t.Parallel()
	srv := startServer(t, withTLS)
	for name, change := range map[string]func(*tls.Config){
		"TLS 1.1": func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 },
		"CBC": func(c *tls.Config) {
			c.MaxVersion = tls.VersionTLS12
			c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA}
		},
		"RSA": func(c *tls.Config) {
			c.MaxVersion = tls.VersionTLS12
			c.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
		},
		"another name": func(c *tls.Config) { c.ServerName = "example.org" },
	} {
		config := wire.TLS(t, srv.cfg.Server.Data)
		change(config)
		if conn, err := tls.Dial("tcp", srv.tlsAddr(), config); err == nil {
			conn.Close()
			t.Errorf("%s is taken", name)
		}
	}
}

// TestTLSPassword: a password is taken with TLS whatever the setting says of
// connections without.
func TestTLSPassword(t *testing.T) {
	t.Parallel()
	srv := startServer(t, withTLS, func(c *config) { c.Auth.PlainPassword = "never" })
	plain, sealed := srv.Guest("plain"), srv.overTLS()
	plain.Ask("#createlogin plain pw name mail", "@status 3508")
	sealed.Ask("#login anon sealed", "@status 0")
	sealed.Ask("#createlogin sealed pw name mail", "@status 0")
	sealed.Ask("#login regd sealed pw", "@status 0")
	sealed.Ask("#changepass other pw", "@status 0")
	plain.Ask("#login regd sealed other", "@status 3508")
	again := srv.overTLS()
	again.Ask("#login regd sealed other", "@status 0")
	sealed.ClosedWell(`@mess #warning "logged in from another place"`)
}

// TestTLSOtherSpeech: a client that speaks no TLS is told so; a browser gets nothing.
func TestTLSOtherSpeech(t *testing.T) {
	t.Parallel()
	srv := startServer(t, withTLS)
	for _, line := range []string{"#login anon alice", "GET / HTTP/1.1"} {
		c := srv.dialRaw()
		c.Send(line)
		c.Ended(`@mess #warning "this port speaks TLS only"`)
	}
	browser := srv.overTLS()
	browser.Send("GET / HTTP/1.1", "Host: localhost", "", "#login anon alice")
	browser.ClosedWell()
}

// TestTLSHandshakeEnds: a client that does not finish the handshake counts, and has to go.
func TestTLSHandshakeEnds(t *testing.T) {
	t.Parallel()
	srv := startServer(t, withTLS, func(c *config) {
		c.Limits.LoginGrace = duration{time.Second}
		c.Limits.Connections = 1
	})
	counted := func() int {
		srv.doorway.admission.mu.Lock()
		defer srv.doorway.admission.mu.Unlock()
		return srv.doorway.admission.open
	}
	for range 2 { // the second one comes when the first has gone
		silent := srv.dialRaw()
		if _, err := silent.In.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the handshake that never came ends with %v", err)
		}
		wire.WantBack(t, "connections", 0, counted)
	}
}

// TestTLSCounts: past the limit there is no handshake, and on this port no
// warning that nobody could read.
func TestTLSCounts(t *testing.T) {
	t.Parallel()
	srv := startServer(t, withTLS, func(c *config) { c.Limits.Connections = 2 })
	srv.dialRaw() // accepted before those that follow, and waited for by nobody
	alice := srv.overTLS()
	alice.Ask("#login anon alice", "@status 0")
	if line, err := srv.dialRaw().ReadErr(); err == nil || line != "" {
		t.Errorf("got %q (%v), want the end", line, err)
	}
	alice.Ask("#ping", "@ret #ping")
}

// TestTLSStop: a stop tells those who are on, and does not wait for handshakes.
func TestTLSStop(t *testing.T) {
	t.Parallel()
	srv := startServer(t, withTLS)
	silent, alice := srv.dialRaw(), srv.overTLS()
	alice.Ask("#login anon alice", "@status 0")
	srv.stopNow()
	alice.ClosedWell(`@mess #warning "the server is stopping"`)
	if _, err := silent.In.ReadByte(); err == nil {
		t.Error("an unfinished handshake outlives a stop")
	}
}

// TestTLSLost: a connection that breaks off in the middle of a record, or of
// nothing, leaves its name.
func TestTLSLost(t *testing.T) {
	t.Parallel()
	srv := startServer(t, withTLS)
	watcher := srv.Guest("watcher")
	watcher.Ask("#events on", "@status 0")
	for _, last := range []string{"", "\x17\x03\x03\x00\x40half a record", "no record at all"} {
		c := srv.overTLS()
		c.Ask("#login anon lost", "@status 0")
		watcher.Expect("@mess #entered Home lost anon")
		raw := c.Conn.(*tls.Conn).NetConn()
		if _, err := io.WriteString(raw, last); err != nil {
			t.Fatal(err)
		}
		raw.Close()
		watcher.Expect("@mess #left Home lost")
	}
}

// TestTLSReading: lines arrive however TLS has cut them.
func TestTLSReading(t *testing.T) {
	t.Parallel()
	srv := startServer(t, withTLS)
	c := srv.overTLS()
	for _, b := range []byte("#ping bytes\r\n#ping more\r\n") { // a record each
		c.Raw(string(b))
	}
	c.Expect("@ret #ping bytes", "@ret #ping more")
	const many = 3000
	var text strings.Builder
	for i := range many {
		fmt.Fprintf(&text, "#ping %d%s\r\n", i, strings.Repeat("x", i%500))
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := io.WriteString(c.Conn, text.String()); err != nil {
			t.Error(err)
		}
	})
	for i := range many {
		c.Expect(fmt.Sprintf("@ret #ping %d%s", i, strings.Repeat("x", i%500)))
	}
	sending.Wait()
	c.Raw("#ping and the end\r\n#ping " + strings.Repeat("y", 1000))
	c.Expect("@status 3504")
	c.ClosedWell(`@mess #warning "line longer than 1000 bytes"`)
}

// records counts the records with content that come on a connection.
type records struct {
	net.Conn
	in     bytes.Buffer
	number int
}

func (r *records) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.in.Write(b[:n])
	for r.in.Len() >= 5 {
		head := r.in.Bytes()
		size := 5 + int(head[3])<<8 + int(head[4])
		if r.in.Len() < size {
			break
		}
		if head[0] == 23 { // application data
			r.number++
		}
		r.in.Next(size)
	}
	return n, err
}

// writing is how many sessions' writers have their sockets.
func (ts *testServer) writing() (n int) {
	ts.doorway.mu.Lock()
	defer ts.doorway.mu.Unlock()
	for s := range ts.doorway.sessions {
		s.out.mu.Lock()
		if s.out.hands != idle {
			n++
		}
		s.out.mu.Unlock()
	}
	return n
}

// TestTLSOneRecord: what many commands are answered goes out as one record.
func TestTLSOneRecord(t *testing.T) {
	t.Parallel()
	srv := startServer(t, withTLS)
	raw, err := net.Dial("tcp", srv.tlsAddr())
	if err != nil {
		t.Fatal(err)
	}
	counted := &records{Conn: raw}
	config := wire.TLS(t, srv.cfg.Server.Data)
	config.DynamicRecordSizingDisabled = true // what it sends is one record too
	c := wire.Greeted(t, tls.Client(counted, config))
	c.Ask("#login anon alice", "@status 0")
	wire.WantBack(t, "writers at work", 0, srv.writing) // while one is, it takes what comes as it comes
	before := counted.number
	c.Raw(strings.Repeat("#ping one\r\n", 300))
	for range 300 {
		c.Expect("@ret #ping one")
	}
	if n := counted.number - before; n != 1 {
		t.Errorf("300 replies came in %d records, want 1", n)
	}
}

// TestTLSStalled: a client that does not read over TLS holds nobody up and is cut off.
func TestTLSStalled(t *testing.T) {
	t.Parallel()
	srv := startServer(t, withTLS)
	other, slow := srv.Guest("other"), srv.overTLS()
	slow.Ask("#login anon slow", "@status 0")
	text := strings.Repeat("x", 900)
	for start := time.Now(); other.Listed("#listusers", "slow") != nil; {
		other.Ask("#broadcast "+text, `@mess #broadcast other "`+text+`"`, "@status 0")
		if time.Since(start) > wire.Patience {
			t.Fatal("the member that does not read is still there")
		}
	}
}

// TestTLSBurst: 1000 lines at once reach everybody who reads.
func TestTLSBurst(t *testing.T) {
	t.Parallel()
	const lines, members = 1000, 10
	srv := startServer(t, withTLS)
	sender := srv.Guest("sender")
	var reading sync.WaitGroup
	for i := range members {
		c := srv.overTLS()
		c.Ask(fmt.Sprintf("#login anon member%d", i), "@status 0")
		reading.Go(func() { wantBurst(c, lines, "") })
	}
	reading.Go(func() {
		for i := range lines {
			sendOn(t, sender.Conn, fmt.Sprintf("#broadcast %d", i))
		}
	})
	for range lines {
		for sender.Read() != "@status 0" {
		}
	}
	reading.Wait()
}

// TestTLSLeavesNothing: connections that break off leave no goroutine. (It is not
// parallel: it counts.)
func TestTLSLeavesNothing(t *testing.T) {
	srv := startServer(t, withTLS)
	srv.Guest("stays").Barrier()
	sealed := srv.overTLS()
	sealed.Ask("#login anon sealed", "@status 0")
	sealed.Barrier() // both listeners are at work now
	goroutines := runtime.NumGoroutine()
	for range 20 {
		c := srv.overTLS()
		c.Ask("#ping", "@ret #ping")
		c.Conn.(*tls.Conn).NetConn().Close()
		srv.dialRaw().Conn.Close()
	}
	wire.WantBack(t, "goroutines", goroutines, runtime.NumGoroutine)
}
