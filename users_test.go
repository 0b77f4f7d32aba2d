package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestGuestLogsInToItsName is a guest that makes an account of its own name and
// logs in to it: it is no guest any more.
func TestGuestLogsInToItsName(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.guest("alice")
	alice.ask(`#createlogin alice pw "Alice A" alice@example.org`, "@status 0")
	alice.ask("#listusers", "@ret #listusers 1", "alice anon")
	alice.ask("#login regd alice pw", "@status 0")
	alice.ask("#listusers", "@ret #listusers 1", "alice regd")
	alice.ask(`#createroom staff "" regd`, "@status 0")
	alice.ask("#changeroom staff", "@status 0")
	alice.ask("#changepass new pw", "@status 0")
	alice.ask("#rmlogin", "@status 0")
	alice.ask("#whoami", "@status 3500")
}

// TestTakeover is an account's second login: the first connection ends, and its
// places and name are free.
func TestTakeover(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	bob, first := srv.guest("bob"), srv.member("alice")
	first.ask("#createroom den", "@status 0")
	first.ask(`#creategroup talk "" anon`, "@status 0")
	for _, c := range []*client{first, bob} {
		c.ask("#changeroom den", "@status 0")
		c.ask("#joingroup talk", "@status 0")
	}
	bob.ask("#events on", "@status 0")

	second := srv.dial()
	second.ask("#login regd alice wrong", "@status 3002")
	first.ask("#whoami", "@ret #whoami alice den 2 talk 1")
	second.ask("#login regd Alice pw", "@status 0")
	first.ended(`@mess #warning "logged in from another place"`)
	bob.expect("@mess #left den alice")
	second.ask("#whoami", "@ret #whoami alice Home 1 - 0")
	wantOwners(second, "alice", "alice")
	bob.ask("#changeroom Home", "@status 0")
	second.ask("#rmroom den", "@status 0")

	// Also from a connection that is somebody else; that name is free then.
	bob.ask("#events off", "@status 0")
	bob.ask("#login regd alice pw", "@status 0")
	second.ended(`@mess #warning "logged in from another place"`)
	bob.ask("#whoami", "@ret #whoami alice Home 1 - 0")
	srv.guest("bob")
}

// TestTakeoverOfGuest is the owner of an account coming while a guest, who was
// there before the account, still has the name.
func TestTakeoverOfGuest(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	guest, owner := srv.guest("alice"), srv.dial()
	guest.ask(`#createlogin alice pw "Alice A" alice@example.org`, "@status 0")
	owner.ask("#login regd alice pw", "@status 0")
	guest.ended(`@mess #warning "logged in from another place"`)
	owner.ask("#listusers", "@ret #listusers 1", "alice regd")
}

// TestManyTakeovers has many connections log in to one account at once: one is
// left in the end.
func TestManyTakeovers(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	clients := []*client{srv.member("alice")}
	for range 12 {
		clients = append(clients, srv.dial())
	}
	for _, c := range clients[1:] {
		c.send("#login regd alice pw")
	}
	for _, c := range clients[1:] { // every login has come to its end
		if line, err := c.readErr(); err == nil && line != "@status 0" && line != `@mess #warning "logged in from another place"` {
			t.Errorf("a login got %q", line)
		}
	}
	left := 0
	for _, c := range clients {
		_, _ = c.conn.Write([]byte("#whoami\r\n")) // it may be closed
		line, err := c.readErr()
		if line == `@mess #warning "logged in from another place"` {
			line, err = c.readErr()
		}
		if line == "@ret #whoami alice Home 1 - 0" {
			left++
		} else if err == nil {
			t.Errorf("a connection got %q", line)
		}
	}
	if left != 1 {
		t.Errorf("%d connections are left, want 1", left)
	}
}

// TestCrossedTakeovers has two users log in to each other's account at the same
// moment: at least one of them gets there, and nobody waits for ever.
func TestCrossedTakeovers(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	for range 20 {
		a, b := srv.relogin("alice"), srv.relogin("bob")
		a.send("#login regd bob pw")
		b.send("#login regd alice pw")
		done := 0
		for _, c := range []*client{a, b} {
			line, err := c.readErr()
			for err == nil && line != "@status 0" {
				line, err = c.readErr()
			}
			if err == nil {
				done++
			} else if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
				t.Fatalf("no answer: %v", err)
			}
		}
		if done == 0 {
			t.Fatal("both were ended")
		}
	}
}

// relogin is member for an account that may exist already.
func (ts *testServer) relogin(name string) *client {
	ts.t.Helper()
	if ts.findAccount(name) == nil {
		return ts.member(name)
	}
	c := ts.dial()
	c.ask("#login regd "+name+" pw", "@status 0")
	return c
}

// TestOwnershipAfterRmLogin deletes an account and registers its name again: the
// new one owns nothing, also after a restart.
func TestOwnershipAfterRmLogin(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice, bob := srv.member("alice"), srv.guest("bob")
	alice.ask("#createroom den", "@status 0")
	alice.ask(`#creategroup talk "" anon`, "@status 0")
	alice.ask("#joingroup talk", "@status 0")
	alice.ask("#postmessage hello\r\ntext", "@status 0")
	wantOwners(bob, "alice", "alice")
	alice.ask("#rmlogin", "@status 0")
	wantOwners(bob, "-", "-")
	alice.ask("#login anon alice", "@status 0")
	alice.ask("#rmroom den", "@status 3103")
	alice.ask(`#createlogin alice pw "Alice A" alice@example.org`, "@status 0")
	alice.ask("#login regd alice pw", "@status 0")
	for range 2 {
		wantOwners(alice, "-", "-")
		alice.ask("#rmroom den", "@status 3103")
		alice.ask("#joingroup talk", "@status 0")
		alice.send("#listmessages")
		if lines := alice.barrier(); len(lines) != 2 || !strings.HasPrefix(lines[1], "hello alice ") {
			t.Errorf("the message is listed as %q", lines)
		}
		srv = srv.restart()
		alice = srv.dial()
		alice.ask("#login regd alice pw", "@status 0")
	}
}

// TestOwnershipSurvivesRestart is an account's room after one.
func TestOwnershipSurvivesRestart(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.member("Alice")
	alice.ask("#createroom den sesame", "@status 0")
	alice.ask("#creategroup talk", "@status 0")
	srv = srv.restart()
	alice = srv.dial()
	alice.ask("#login regd alice pw", "@status 0")
	alice.ask("#whoami", "@ret #whoami Alice Home 1 - 0")
	wantOwners(alice, "Alice", "Alice")
	alice.ask("#rmroom den wrong", "@status 3101")
	alice.ask("#rmroom den", "@status 0")
}

// TestNamesOverTheWire is the edges of user names and passwords.
func TestNamesOverTheWire(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.guest(strings.Repeat("a", 30))
	alice.ask("#login anon "+strings.Repeat("a", 31), "@status -4")
	alice.ask("#login anon "+strings.Repeat("日", 30), "@status 0")
	alice.ask("#login anon "+strings.Repeat("日", 31), "@status -4")
	alice.ask("#login anon аdmin", "@status -4") // a Cyrillic letter
	alice.ask("#whoami", "@ret #whoami "+strings.Repeat("日", 30)+" Home 1 - 0")

	long := strings.Repeat("p", 100)
	alice.ask("#createlogin bob "+long+"p real mail", "@status 3504")
	alice.ask("#createlogin bob "+long+" real mail", "@status 0")
	alice.ask("#login regd bob "+long+"p", "@status 3002")
	alice.ask(`#login regd bob ""`, "@status 3002")
	alice.ask("#login regd bob "+long, "@status 0")
	alice.ask("#changepass "+long+"p "+long, "@status 3504")
	alice.ask("#changepass "+strings.Repeat("é", 51)+" "+long, "@status 3504")
	alice.ask("#changepass "+strings.Repeat("é", 50)+" "+long, "@status 0")
	alice.ask("#login regd bob "+strings.Repeat("e\u0301", 50), "@status 0")
	alice.ask("#createroom vault "+long+"p", "@status 3504")
	alice.ask("#createroom vault "+long, "@status 0")
	alice.ask("#changeroom vault "+long, "@status 0")
}

// TestPasswordSurvivesRestart changes a password and logs in after a restart.
func TestPasswordSurvivesRestart(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.member("alice")
	alice.ask(`#changepass "new one" pw`, "@status 0")
	alice.ask("#createlogin bob pw real mail", "@status 0")
	alice.ask("#rmlogin", "@status 0")
	srv = srv.restart()
	alice = srv.dial()
	alice.ask(`#login regd alice "new one"`, "@status 3001")
	alice.ask("#login regd bob pw", "@status 0")
	alice.ask("#changepass secret pw", "@status 0")
	srv = srv.restart()
	alice = srv.dial()
	alice.ask("#login regd bob pw", "@status 3002")
	alice.ask("#login regd bob secret", "@status 0")
}

// TestWrongPasswordsAreThrottled tries passwords past what the settings allow an
// address in a minute.
func TestWrongPasswordsAreThrottled(t *testing.T) {
	t.Parallel()
	srv := startServer(t, func(c *config) { c.Limits.LoginsPerMinute = 5 })
	member, thief := srv.member("alice"), srv.dial()
	for range 5 {
		thief.ask("#login regd alice wrong", "@status 3002")
	}
	thief.ask("#login regd alice wrong", "@status 3006")
	srv.dial().ask("#login regd alice wrong", "@status 3006") // another connection, the same address
	member.ask("#changepass new wrong", "@status 3006")
	member.ask("#whoami", "@ret #whoami alice Home 1 - 0")
}

func TestTakesPlain(t *testing.T) {
	lan := []string{
		"127.0.0.1", "127.9.9.9", "::1", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1",
		"169.254.1.1", "fc00::1", "fdff::1", "fe80::1", "febf::1",
	}
	world := []string{
		"9.255.255.255", "11.0.0.1", "172.15.0.1", "172.32.0.1", "192.167.0.1", "192.169.0.1", "169.253.0.1",
		"8.8.8.8", "100.64.0.1", "2001:db8::1", "fbff::1", "fec0::1", "::", "0.0.0.0", "224.0.0.1",
	}
	for i, address := range slices.Concat(lan, world) {
		a := netip.MustParseAddr(address)
		if got := takesPlain("lan", a); got != (i < len(lan)) {
			t.Errorf("a password in clear from %s: %v", a, got)
		}
		if got := takesPlain("loopback", a); got != a.IsLoopback() {
			t.Errorf("with only loopback, a password in clear from %s: %v", a, got)
		}
		if takesPlain("never", a) {
			t.Errorf("a password in clear from %s, never allowed", a)
		}
	}
	if takesPlain("lan", netip.Addr{}) {
		t.Error("a password in clear from no address")
	}
}

// TestLoginGrace is a connection that does not log in, and one that is logged
// out and does not log in again.
func TestLoginGrace(t *testing.T) {
	t.Parallel()
	srv := startServer(t, func(c *config) { c.Limits.LoginGrace = duration{time.Second} })
	silent, alice, bob := srv.dial(), srv.member("alice"), srv.guest("bob")
	silent.ended(`@mess #warning "you did not log in in time; the connection ends"`)
	alice.ask("#rmlogin", "@status 0")
	alice.ended(`@mess #warning "you did not log in in time; the connection ends"`)
	bob.ask("#whoami", "@ret #whoami bob Home 1 - 0")
}

// TestNameIsFreeAfterLeaving checks that a name is free at the moment at which
// its user sees the connection end.
func TestNameIsFreeAfterLeaving(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	for i := range 20 {
		c := srv.guest("alice")
		c.ask("#createroom den", fmt.Sprintf("@status %d", map[bool]int{true: 0, false: 3102}[i == 0]))
		c.ask("#quit", "@status 0")
		c.ended()
	}
	alice := srv.guest("alice")
	alice.ask("#login anon other", "@status 0")
	srv.guest("alice")
}

// TestFailedLoginKeepsEverything is every login that fails, in a room and a group.
func TestFailedLoginKeepsEverything(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	srv.guest("bob")
	srv.member("carol")
	alice := srv.member("alice")
	alice.ask("#createroom den", "@status 0")
	alice.ask("#changeroom den", "@status 0")
	alice.ask("#creategroup talk", "@status 0")
	alice.ask("#joingroup talk", "@status 0")
	alice.ask("#events on", "@status 0")
	for line, want := range map[string]string{
		"#login": "3000", "#login x alice": "3000", "#login anon bob": "3003", "#login anon carol": "3004",
		"#login anon -": "-4", "#login regd nobody pw": "3001", "#login regd - pw": "3001", "#login regd carol no": "3002",
		"#login anon alice": "3004", "#login regd bob pw": "3001", "#login regd": "3504",
	} {
		alice.ask(line, "@status "+want)
		alice.ask("#whoami", "@ret #whoami alice den 1 talk 1")
	}
	alice.send("#postmessage x", "text")
	alice.expect(`@mess #posted talk 1 0 alice "x"`, "@status 0") // events are still on
}
