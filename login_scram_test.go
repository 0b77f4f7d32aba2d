package main

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xdg-go/scram"

	"homeroom/store"
	"homeroom/test/storetest"
	"homeroom/test/wire"
)

// TestAuth logs in with a password that never crosses the network.
func TestAuth(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	first, c := srv.Member("Alice"), srv.Dial()
	c.WantAuth("alice", "wrong", "@status 3002")
	c.Ask("#whoami", "@status 3500")
	c.WantAuth("alice", "pw", "")
	first.Ended(`@mess #warning "logged in from another place"`)
	c.Ask("#whoami", "@ret #whoami Alice Home 1 - 0")
	c.Ask(`#changepass "pass, \"word\" \\ =2C é" pw`, "@status 0")
	c.WantAuth("ALICE", "pw", "@status 3002")
	c.Ask("#whoami", "@ret #whoami Alice Home 1 - 0")
	srv = srv.restart()
	c = srv.Guest("bob")
	c.WantAuth("Alice", `pass, "word" \ =2C é`, "")
	c.Ask("#listusers", "@ret #listusers 1", "Alice regd")
	srv.Guest("bob")
}

// TestAuthNames is names that have to be escaped, and names in other scripts.
func TestAuthNames(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	for _, user := range []string{`a,b=c`, `q"\u`, "日本", "Ærø"} {
		c := srv.Guest("guest")
		c.Ask("#createlogin "+string(appendQuoted(nil, user))+" pw real mail", "@status 0")
		c.WantAuth(user, "pw", "")
		c.Ask("#quit", "@status 0")
		c.Ended()
	}
}

// TestAuthPreparation: the server prepares passwords by OpaqueString, where the
// library's client goes by SASLprep unless it is told to leave them alone.
func TestAuthPreparation(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	c := srv.Guest("guest")
	c.Ask("#createlogin alice \uff21\u3000b real mail", "@status 0")
	c.Ask("#createlogin bob a\u00adb real mail", "@status 3504")
	c.WantAuth("alice", "\uff21\u3000b", "@status 3002")
	client, err := scram.SHA256.NewClientUnprepped("alice", "\uff21 b", "")
	if err != nil {
		t.Fatal(err)
	}
	talk := client.WithMinIterations(1).NewConversation()
	if got := c.LastStep(talk, c.FirstStep(talk)); got != "" {
		t.Errorf("with the password as OpaqueString has it: %q", got)
	}
}

// TestAuthOutOfOrder is second steps to which there is no first.
func TestAuthOutOfOrder(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	srv.Member("alice")
	c := srv.Dial()
	talk := wire.ScramTalk(t, "alice", "pw")
	final, err := talk.Step(c.FirstStep(talk))
	if err != nil {
		t.Fatal(err)
	}
	final = "#auth " + final
	for _, other := range []string{"#login regd alice wrong", "#login anon alice", "#login", "#auth x"} {
		c.Send(other)
		if line := c.Read(); !strings.HasPrefix(line, "@status 3") {
			t.Errorf("%q: %s", other, line)
		}
		c.Ask(final, "@status 3504")
		talk = wire.ScramTalk(t, "alice", "pw")
		if final, err = talk.Step(c.FirstStep(talk)); err != nil {
			t.Fatal(err)
		}
		final = "#auth " + final
	}
	c.Ask("#ping x", "@ret #ping x") // other commands do not matter
	srv.Dial().Ask(final, "@status 3504")
	c.Send(final)
	if line := c.Read(); !strings.HasPrefix(line, `@ret #auth "v=`) {
		t.Errorf("the login is answered with %s", line)
	}
	c.Ask(final, "@status 3504") // what was heard cannot be used again
	talk = wire.ScramTalk(t, "alice", "pw")
	c.FirstStep(talk)
	c.Ask(final, "@status 3002") // nor in another exchange
}

// TestAuthStartsAnew begins twice: the second time counts.
func TestAuthStartsAnew(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	srv.Member("alice")
	c := srv.Dial()
	c.FirstStep(wire.ScramTalk(t, "bob", "x"))
	c.WantAuth("alice", "pw", "")
}

// TestAuthChangedMeanwhile changes and deletes the account between two steps.
func TestAuthChangedMeanwhile(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	owner, c := srv.Member("alice"), srv.Dial()
	talk := wire.ScramTalk(t, "alice", "pw")
	serverFirst := c.FirstStep(talk)
	owner.Ask("#changepass new pw", "@status 0")
	if got := c.LastStep(talk, serverFirst); got != "@status 3002" {
		t.Errorf("after a change of the password: %q", got)
	}
	talk = wire.ScramTalk(t, "alice", "new")
	serverFirst = c.FirstStep(talk)
	owner.Ask("#rmlogin", "@status 0")
	if got := c.LastStep(talk, serverFirst); got != "@status 3002" {
		t.Errorf("after the account is gone: %q", got)
	}
	c.Ask("#whoami", "@status 3500")
}

// TestAuthUnknown: names that nobody has look like others.
func TestAuthUnknown(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	srv.Member("alice")
	var nobody, none string
	for range 2 {
		c := srv.Dial()
		c.WantAuth("nobody", "pw", "@status 3002")
		c.WantAuth("-", "pw", "@status 3002")
		if again := c.Salt("Nobody"); nobody != "" && again != nobody {
			t.Errorf("the salt of nobody was %q and is %q", nobody, again)
		}
		nobody = c.Salt("nobody")
		if again := c.Salt("-"); none != "" && again != none {
			t.Errorf("the salt of a name that is none was %q and is %q", none, again)
		}
		none = c.Salt("-")
		if c.Salt("other") == nobody || none == nobody {
			t.Error("two names have the same salt")
		}
		if alice := c.Salt("alice"); len(alice) != len(nobody) || !strings.HasSuffix(alice, ",i=16") || !strings.HasSuffix(nobody, ",i=16") {
			t.Errorf("a known name gets %q, an unknown one %q", alice, nobody)
		}
		srv = srv.restart()
	}
	other := startServer(t)
	if other.Dial().Salt("nobody") == nobody {
		t.Error("another server makes up the same salts")
	}
}

// TestAuthCountsGuesses: wrong proofs count like wrong passwords.
func TestAuthCountsGuesses(t *testing.T) {
	t.Parallel()
	srv := startServer(t, func(c *config) { c.Limits.LoginsPerMinute, c.Limits.GuessesPerAccount = 4, 0 })
	srv.Member("alice")
	c, begun := srv.Dial(), srv.Dial()
	talk := wire.ScramTalk(t, "alice", "pw")
	serverFirst := begun.FirstStep(talk)
	for _, user := range []string{"alice", "nobody", "alice"} {
		c.WantAuth(user, "wrong", "@status 3002")
	}
	c.Ask("#login regd alice wrong", "@status 3002")
	c.Ask(`#auth SCRAM-SHA-256 "n,,n=alice,r=abc"`, "@status 3006")
	if got := begun.LastStep(talk, serverFirst); got != "@status 3006" {
		t.Errorf("the right proof of an address that has to wait: %q", got)
	}
	c.Ask("#login regd alice pw", "@status 3006")
	c.Ask("#login anon bob", "@status 0")
}

// TestAuthFromAnywhere: passwords in clear are taken from near only, #auth from
// anywhere.
func TestAuthFromAnywhere(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"lan", "never"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(b *bubble) {
				b.guest("bob").Ask("#createlogin alice pw real mail", "@status 0")
				b.cfg.Auth.PlainPassword = setting
				for _, address := range []string{"203.0.113.9", "2001:db8::9"} {
					c := b.dialFrom(address)
					c.Ask("#login regd alice pw", "@status 3508")
					c.WantAuth("alice", "pw", "")
					c.Ask("#whoami", "@ret #whoami alice Home 2 - 0")
					c.Ask("#quit", "@status 0")
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
		b.guest("bob").Ask("#createlogin alice pw real mail", "@status 0")
		thief, owner := b.dialFrom("2001:db8::1"), b.dialFrom("2001:db8:0:1::1")
		for range 3 {
			thief.WantAuth("alice", "wrong", "@status 3002")
		}
		first := `#auth SCRAM-SHA-256 "n,,n=alice,r=abc"`
		thief.Ask(first, "@status 3006")
		b.dialFrom("2001:db8::2").Ask(first, "@status 3006") // the same /64
		owner.WantAuth("alice", "pw", "")
		b.pass(79 * time.Second) // 20 s for a guess, twice doubled
		thief.Ask("#ping x", "@ret #ping x")
		b.pass(time.Second)
		thief.WantAuth("alice", "pw", "")
		synctest.Wait()
		owner.Ended(`@mess #warning "logged in from another place"`)
	}, func(c *config) { c.Limits.LoginsPerMinute = 3 })
}

// TestSecretIsStored: the secret that made-up salts come from is in a database of
// every age, once.
func TestSecretIsStored(t *testing.T) {
	t.Parallel()
	o := storetest.Options(t)
	o.Folder = storetest.FrozenDatabase(t)
	o.Fill = func(v *store.Values) { fillValues(v, false) }
	var secrets []string
	for range 2 {
		st, err := store.OpenSQLite(o)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, fmt.Sprintf("%x", st.Values.Secret))
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(secrets[0]) != 2*secretBytes || secrets[1] != secrets[0] {
		t.Errorf("the secret was %s and is %s", secrets[0], secrets[1])
	}
}
