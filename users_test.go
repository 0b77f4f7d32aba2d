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

	"homeroom/test/wire"
)

// TestGuestLogsInToItsName is a guest that makes an account of its own name and
// logs in to it: it is no guest any more.
func TestGuestLogsInToItsName(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.Guest("alice")
	alice.Ask(`#createlogin alice pw "Alice A" alice@example.org`, "@status 0")
	alice.Ask("#listusers", "@ret #listusers 1", "alice anon")
	alice.Ask("#login regd alice pw", "@status 0")
	alice.Ask("#listusers", "@ret #listusers 1", "alice regd")
	alice.Ask(`#createroom staff "" regd`, "@status 0")
	alice.Ask("#changeroom staff", "@status 0")
	alice.Ask("#changepass new pw", "@status 0")
	alice.Ask("#rmlogin", "@status 0")
	alice.Ask("#whoami", "@status 3500")
}

// TestTakeover is an account's second login: the first connection ends, and its
// places and name are free.
func TestTakeover(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	bob, first := srv.Guest("bob"), srv.Member("alice")
	first.Ask("#createroom den", "@status 0")
	first.Ask(`#creategroup talk "" anon`, "@status 0")
	for _, c := range []*wire.Client{first, bob} {
		c.Ask("#changeroom den", "@status 0")
		c.Ask("#joingroup talk", "@status 0")
	}
	bob.Ask("#events on", "@status 0")

	second := srv.Dial()
	second.Ask("#login regd alice wrong", "@status 3002")
	first.Ask("#whoami", "@ret #whoami alice den 2 talk 1")
	second.Ask("#login regd Alice pw", "@status 0")
	first.Ended(`@mess #warning "logged in from another place"`)
	bob.Expect("@mess #left den alice")
	second.Ask("#whoami", "@ret #whoami alice Home 1 - 0")
	wantOwners(second, "alice", "alice")
	bob.Ask("#changeroom Home", "@status 0")
	second.Ask("#rmroom den", "@status 0")

	// Also from a connection that is somebody else; that name is free then.
	bob.Ask("#events off", "@status 0")
	bob.Ask("#login regd alice pw", "@status 0")
	second.Ended(`@mess #warning "logged in from another place"`)
	bob.Ask("#whoami", "@ret #whoami alice Home 1 - 0")
	srv.Guest("bob")
}

// TestTakeoverOfGuest is the owner of an account coming while a guest, who was
// there before the account, still has the name.
func TestTakeoverOfGuest(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	guest, owner := srv.Guest("alice"), srv.Dial()
	guest.Ask(`#createlogin alice pw "Alice A" alice@example.org`, "@status 0")
	owner.Ask("#login regd alice pw", "@status 0")
	guest.Ended(`@mess #warning "logged in from another place"`)
	owner.Ask("#listusers", "@ret #listusers 1", "alice regd")
}

// TestManyTakeovers has many connections log in to one account at once: one is
// left in the end.
func TestManyTakeovers(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	clients := []*wire.Client{srv.Member("alice")}
	for range 12 {
		clients = append(clients, srv.Dial())
	}
	for _, c := range clients[1:] {
		c.Send("#login regd alice pw")
	}
	for _, c := range clients[1:] { // every login has come to its end
		if line, err := c.ReadErr(); err == nil && line != "@status 0" && line != `@mess #warning "logged in from another place"` {
			t.Errorf("a login got %q", line)
		}
	}
	left := 0
	for _, c := range clients {
		_, _ = c.Conn.Write([]byte("#whoami\r\n")) // it may be closed
		line, err := c.ReadErr()
		if line == `@mess #warning "logged in from another place"` {
			line, err = c.ReadErr()
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
		a.Send("#login regd bob pw")
		b.Send("#login regd alice pw")
		done := 0
		for _, c := range []*wire.Client{a, b} {
			line, err := c.ReadErr()
			for err == nil && line != "@status 0" {
				line, err = c.ReadErr()
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

// TestOwnershipAfterRmLogin deletes an account and registers its name again: the
// new one owns nothing, also after a restart.
func TestOwnershipAfterRmLogin(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice, bob := srv.Member("alice"), srv.Guest("bob")
	alice.Ask("#createroom den", "@status 0")
	alice.Ask(`#creategroup talk "" anon`, "@status 0")
	alice.Ask("#joingroup talk", "@status 0")
	alice.Ask("#postmessage hello\r\ntext", "@status 0")
	wantOwners(bob, "alice", "alice")
	alice.Ask("#rmlogin", "@status 0")
	wantOwners(bob, "-", "-")
	alice.Ask("#login anon alice", "@status 0")
	alice.Ask("#rmroom den", "@status 3103")
	alice.Ask(`#createlogin alice pw "Alice A" alice@example.org`, "@status 0")
	alice.Ask("#login regd alice pw", "@status 0")
	for range 2 {
		wantOwners(alice, "-", "-")
		alice.Ask("#rmroom den", "@status 3103")
		alice.Ask("#joingroup talk", "@status 0")
		alice.Send("#listmessages")
		if lines := alice.Barrier(); len(lines) != 2 || !strings.HasPrefix(lines[1], "hello alice ") {
			t.Errorf("the message is listed as %q", lines)
		}
		srv = srv.restart()
		alice = srv.Dial()
		alice.Ask("#login regd alice pw", "@status 0")
	}
}

// TestOwnershipSurvivesRestart is an account's room after one.
func TestOwnershipSurvivesRestart(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.Member("Alice")
	alice.Ask("#createroom den sesame", "@status 0")
	alice.Ask("#creategroup talk", "@status 0")
	srv = srv.restart()
	alice = srv.Dial()
	alice.Ask("#login regd alice pw", "@status 0")
	alice.Ask("#whoami", "@ret #whoami Alice Home 1 - 0")
	wantOwners(alice, "Alice", "Alice")
	alice.Ask("#rmroom den wrong", "@status 3101")
	alice.Ask("#rmroom den", "@status 0")
}

// TestNamesOverTheWire is the edges of user names and passwords.
func TestNamesOverTheWire(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.Guest(strings.Repeat("a", 30))
	alice.Ask("#login anon "+strings.Repeat("a", 31), "@status -4")
	alice.Ask("#login anon "+strings.Repeat("日", 30), "@status 0")
	alice.Ask("#login anon "+strings.Repeat("日", 31), "@status -4")
	alice.Ask("#login anon аdmin", "@status -4") // a Cyrillic letter
	alice.Ask("#whoami", "@ret #whoami "+strings.Repeat("日", 30)+" Home 1 - 0")

	long := strings.Repeat("p", 100)
	alice.Ask("#createlogin bob "+long+"p real mail", "@status 3504")
	alice.Ask("#createlogin bob "+long+" real mail", "@status 0")
	alice.Ask("#login regd bob "+long+"p", "@status 3002")
	alice.Ask(`#login regd bob ""`, "@status 3002")
	alice.Ask("#login regd bob "+long, "@status 0")
	alice.Ask("#changepass "+long+"p "+long, "@status 3504")
	alice.Ask("#changepass "+strings.Repeat("é", 51)+" "+long, "@status 3504")
	alice.Ask("#changepass "+strings.Repeat("é", 50)+" "+long, "@status 0")
	alice.Ask("#login regd bob "+strings.Repeat("e\u0301", 50), "@status 0")
	alice.Ask("#createroom vault "+long+"p", "@status 3504")
	alice.Ask("#createroom vault "+long, "@status 0")
	alice.Ask("#changeroom vault "+long, "@status 0")
}

// TestPasswordSurvivesRestart changes a password and logs in after a restart.
func TestPasswordSurvivesRestart(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.Member("alice")
	alice.Ask(`#changepass "new one" pw`, "@status 0")
	alice.Ask("#createlogin bob pw real mail", "@status 0")
	alice.Ask("#rmlogin", "@status 0")
	srv = srv.restart()
	alice = srv.Dial()
	alice.Ask(`#login regd alice "new one"`, "@status 3001")
	alice.Ask("#login regd bob pw", "@status 0")
	alice.Ask("#changepass secret pw", "@status 0")
	srv = srv.restart()
	alice = srv.Dial()
	alice.Ask("#login regd bob pw", "@status 3002")
	alice.Ask("#login regd bob secret", "@status 0")
}

// TestWrongPasswordsAreThrottled tries passwords past what the settings allow an
// address in a minute, at an account that nobody has logged in to from there.
func TestWrongPasswordsAreThrottled(t *testing.T) {
	t.Parallel()
	srv := startServer(t, func(c *config) { c.Limits.LoginsPerMinute = 5 })
	srv.dialHost().Ask("#adduser bob pw Bob b@example.org", "@status 0")
	member, thief := srv.Member("alice"), srv.Dial()
	for range 5 {
		thief.Ask("#login regd bob wrong", "@status 3002")
	}
	thief.Ask("#login regd bob wrong", "@status 3006")
	srv.Dial().Ask("#login regd bob wrong", "@status 3006") // another connection, the same address
	member.Ask("#changepass new wrong", "@status 3002")     // what is known of alice here is another count
	member.Ask("#whoami", "@ret #whoami alice Home 1 - 0")
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
	silent, alice, bob := srv.Dial(), srv.Member("alice"), srv.Guest("bob")
	silent.Ended(`@mess #warning "you did not log in in time; the connection ends"`)
	alice.Ask("#rmlogin", "@status 0")
	alice.Ended(`@mess #warning "you did not log in in time; the connection ends"`)
	bob.Ask("#whoami", "@ret #whoami bob Home 1 - 0")
}

// TestNameIsFreeAfterLeaving checks that a name is free at the moment at which
// its user sees the connection end.
func TestNameIsFreeAfterLeaving(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	for i := range 20 {
		c := srv.Guest("alice")
		c.Ask("#createroom den", fmt.Sprintf("@status %d", map[bool]int{true: 0, false: 3102}[i == 0]))
		c.Ask("#quit", "@status 0")
		c.Ended()
	}
	alice := srv.Guest("alice")
	alice.Ask("#login anon other", "@status 0")
	srv.Guest("alice")
}

// TestFailedLoginKeepsEverything is every login that fails, in a room and a group.
func TestFailedLoginKeepsEverything(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	srv.Guest("bob")
	srv.Member("carol")
	alice := srv.Member("alice")
	alice.Ask("#createroom den", "@status 0")
	alice.Ask("#changeroom den", "@status 0")
	alice.Ask("#creategroup talk", "@status 0")
	alice.Ask("#joingroup talk", "@status 0")
	alice.Ask("#events on", "@status 0")
	for line, want := range map[string]string{
		"#login": "3000", "#login x alice": "3000", "#login anon bob": "3003", "#login anon carol": "3004",
		"#login anon -": "-4", "#login regd nobody pw": "3001", "#login regd - pw": "3001", "#login regd carol no": "3002",
		"#login anon alice": "3004", "#login regd bob pw": "3001", "#login regd": "3504",
	} {
		alice.Ask(line, "@status "+want)
		alice.Ask("#whoami", "@ret #whoami alice den 1 talk 1")
	}
	alice.Send("#postmessage x", "text")
	alice.Expect(`@mess #posted talk 1 0 alice "x"`, "@status 0") // events are still on
}
