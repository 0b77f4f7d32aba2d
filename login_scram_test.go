package main

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xdg-go/scram"
)

// TestAuth logs in with a password that never crosses the network.
func TestAuth(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	first, c := srv.member("Alice"), srv.dial()
	c.wantAuth("alice", "wrong", "@status 3002")
	c.ask("#whoami", "@status 3500")
	c.wantAuth("alice", "pw", "")
	first.ended(`@mess #warning "logged in from another place"`)
	c.ask("#whoami", "@ret #whoami Alice Home 1 - 0")
	c.ask(`#changepass "pass, \"word\" \\ =2C é" pw`, "@status 0")
	c.wantAuth("ALICE", "pw", "@status 3002")
	c.ask("#whoami", "@ret #whoami Alice Home 1 - 0")
	srv = srv.restart()
	c = srv.guest("bob")
	c.wantAuth("Alice", `pass, "word" \ =2C é`, "")
	c.ask("#listusers", "@ret #listusers 1", "Alice regd")
	srv.guest("bob")
}

// TestAuthNames is names that have to be escaped, and names in other scripts.
func TestAuthNames(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	for _, user := range []string{`a,b=c`, `q"\u`, "日本", "Ærø"} {
		c := srv.guest("guest")
		c.ask("#createlogin "+string(appendQuoted(nil, user))+" pw real mail", "@status 0")
		c.wantAuth(user, "pw", "")
		c.ask("#quit", "@status 0")
		c.ended()
	}
}

// TestAuthPreparation: the server prepares passwords by OpaqueString, where the
// library's client goes by SASLprep unless it is told to leave them alone.
func TestAuthPreparation(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	c := srv.guest("guest")
	c.ask("#createlogin alice \uff21\u3000b real mail", "@status 0")
	c.ask("#createlogin bob a\u00adb real mail", "@status 3504")
	c.wantAuth("alice", "\uff21\u3000b", "@status 3002")
	client, err := scram.SHA256.NewClientUnprepped("alice", "\uff21 b", "")
	if err != nil {
		t.Fatal(err)
	}
	talk := client.WithMinIterations(1).NewConversation()
	if got := c.lastStep(talk, c.firstStep(talk)); got != "" {
		t.Errorf("with the password as OpaqueString has it: %q", got)
	}
}

// TestAuthOutOfOrder is second steps to which there is no first.
func TestAuthOutOfOrder(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	srv.member("alice")
	c := srv.dial()
	talk := scramTalk(t, "alice", "pw")
	final, err := talk.Step(c.firstStep(talk))
	if err != nil {
		t.Fatal(err)
	}
	final = "#auth " + final
	for _, other := range []string{"#login regd alice wrong", "#login anon alice", "#login", "#auth x"} {
		c.send(other)
		if line := c.read(); !strings.HasPrefix(line, "@status 3") {
			t.Errorf("%q: %s", other, line)
		}
		c.ask(final, "@status 3504")
		talk = scramTalk(t, "alice", "pw")
		if final, err = talk.Step(c.firstStep(talk)); err != nil {
			t.Fatal(err)
		}
		final = "#auth " + final
	}
	c.ask("#ping x", "@ret #ping x") // other commands do not matter
	srv.dial().ask(final, "@status 3504")
	c.send(final)
	if line := c.read(); !strings.HasPrefix(line, `@ret #auth "v=`) {
		t.Errorf("the login is answered with %s", line)
	}
	c.ask(final, "@status 3504") // what was heard cannot be used again
	talk = scramTalk(t, "alice", "pw")
	c.firstStep(talk)
	c.ask(final, "@status 3002") // nor in another exchange
}

// TestAuthStartsAnew begins twice: the second time counts.
func TestAuthStartsAnew(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	srv.member("alice")
	c := srv.dial()
	c.firstStep(scramTalk(t, "bob", "x"))
	c.wantAuth("alice", "pw", "")
}

// TestAuthChangedMeanwhile changes and deletes the account between two steps.
func TestAuthChangedMeanwhile(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	owner, c := srv.member("alice"), srv.dial()
	talk := scramTalk(t, "alice", "pw")
	serverFirst := c.firstStep(talk)
	owner.ask("#changepass new pw", "@status 0")
	if got := c.lastStep(talk, serverFirst); got != "@status 3002" {
		t.Errorf("after a change of the password: %q", got)
	}
	talk = scramTalk(t, "alice", "new")
	serverFirst = c.firstStep(talk)
	owner.ask("#rmlogin", "@status 0")
	if got := c.lastStep(talk, serverFirst); got != "@status 3002" {
		t.Errorf("after the account is gone: %q", got)
	}
	c.ask("#whoami", "@status 3500")
}

// TestAuthUnknown: names that nobody has look like others.
func TestAuthUnknown(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	srv.member("alice")
	var nobody, none string
	for range 2 {
		c := srv.dial()
		c.wantAuth("nobody", "pw", "@status 3002")
		c.wantAuth("-", "pw", "@status 3002")
		if again := c.salt("Nobody"); nobody != "" && again != nobody {
			t.Errorf("the salt of nobody was %q and is %q", nobody, again)
		}
		nobody = c.salt("nobody")
		if again := c.salt("-"); none != "" && again != none {
			t.Errorf("the salt of a name that is none was %q and is %q", none, again)
		}
		none = c.salt("-")
		if c.salt("other") == nobody || none == nobody {
			t.Error("two names have the same salt")
		}
		if alice := c.salt("alice"); len(alice) != len(nobody) || !strings.HasSuffix(alice, ",i=16") || !strings.HasSuffix(nobody, ",i=16") {
			t.Errorf("a known name gets %q, an unknown one %q", alice, nobody)
		}
		srv = srv.restart()
	}
	other := startServer(t)
	if other.dial().salt("nobody") == nobody {
		t.Error("another server makes up the same salts")
	}
}

// TestAuthCountsGuesses: wrong proofs count like wrong passwords.
func TestAuthCountsGuesses(t *testing.T) {
	t.Parallel()
	srv := startServer(t, func(c *config) { c.Limits.LoginsPerMinute = 4 })
	srv.member("alice")
	c, begun := srv.dial(), srv.dial()
	talk := scramTalk(t, "alice", "pw")
	serverFirst := begun.firstStep(talk)
	for _, user := range []string{"alice", "nobody", "alice"} {
		c.wantAuth(user, "wrong", "@status 3002")
	}
	c.ask("#login regd alice wrong", "@status 3002")
	c.ask(`#auth SCRAM-SHA-256 "n,,n=alice,r=abc"`, "@status 3006")
	if got := begun.lastStep(talk, serverFirst); got != "@status 3006" {
		t.Errorf("the right proof of an address that has to wait: %q", got)
	}
	c.ask("#login regd alice pw", "@status 3006")
	c.ask("#login anon bob", "@status 0")
}

// fromElsewhere is a pipe's end that says that the other one has this address.
type fromElsewhere struct {
	net.Conn
	address net.IP
}

func (c fromElsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: c.address, Port: 1} }

// dialFrom connects a client from some address.
func (b *bubble) dialFrom(address string) *client {
	b.t.Helper()
	mine, servers := net.Pipe()
	b.serve(fromElsewhere{servers, net.ParseIP(address)})
	return b.greeted(mine)
}

// greeted is the client at this end of a connection; the server has just got the other.
func (b *bubble) greeted(mine net.Conn) *client {
	b.t.Helper()
	conn := &readingConn{Conn: mine}
	conn.wake = sync.NewCond(&conn.mu)
	go conn.pump()
	b.t.Cleanup(func() { conn.Close() })
	c := newClient(b.t, conn)
	c.expect(`@mess #hello "Homeroom" "type #help for help"`)
	return c
}

// TestAuthFromAnywhere: passwords in clear are taken from near only, #auth from
// anywhere.
func TestAuthFromAnywhere(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"lan", "never"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(b *bubble) {
				b.guest("bob").ask("#createlogin alice pw real mail", "@status 0")
				b.cfg.Auth.PlainPassword = setting
				for _, address := range []string{"203.0.113.9", "2001:db8::9"} {
					c := b.dialFrom(address)
					c.ask("#login regd alice pw", "@status 3508")
					c.wantAuth("alice", "pw", "")
					c.ask("#whoami", "@ret #whoami alice Home 2 - 0")
					c.ask("#quit", "@status 0")
				}
			})
		})
	}
}

// TestGuesserLocksNobodyOut: an address that guesses waits, longer and longer; the
// account's owner comes in from another one meanwhile.
func TestGuesserLocksNobodyOut(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b.guest("bob").ask("#createlogin alice pw real mail", "@status 0")
		thief, owner := b.dialFrom("2001:db8::1"), b.dialFrom("2001:db8:0:1::1")
		for range 3 {
			thief.wantAuth("alice", "wrong", "@status 3002")
		}
		first := `#auth SCRAM-SHA-256 "n,,n=alice,r=abc"`
		thief.ask(first, "@status 3006")
		b.dialFrom("2001:db8::2").ask(first, "@status 3006") // the same /64
		owner.wantAuth("alice", "pw", "")
		b.pass(79 * time.Second) // 20 s for a guess, twice doubled
		thief.ask("#ping x", "@ret #ping x")
		b.pass(time.Second)
		thief.wantAuth("alice", "pw", "")
		synctest.Wait()
		owner.ended(`@mess #warning "logged in from another place"`)
	}, func(c *config) { c.Limits.LoginsPerMinute = 3 })
}

// TestSecretIsStored: the secret that made-up salts come from is in a database of
// every age, once.
func TestSecretIsStored(t *testing.T) {
	t.Parallel()
	o := commitStore(t)
	o.folder = frozenDatabase(t)
	var secrets []string
	for range 2 {
		st, err := openStore(o)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, fmt.Sprintf("%x", st.secret))
		if err := st.close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(secrets[0]) != 2*secretBytes || secrets[1] != secrets[0] {
		t.Errorf("the secret was %s and is %s", secrets[0], secrets[1])
	}
}
