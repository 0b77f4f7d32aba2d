package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"homeroom/store"
	"homeroom/test/wire"
)

// gatedStore is a store that adds nothing before it may.
type gatedStore struct {
	store.Store
	may chan struct{}
}

func (s *gatedStore) Add(r *store.Record) error {
	<-s.may
	return s.Store.Add(r)
}

// storedBans is how many bans are in the database.
func (b *bubble) storedBans() (n int) {
	b.t.Helper()
	if err := b.store.Load(store.Ban, func(store.Record) error { n++; return nil }); err != nil {
		b.t.Error(err)
	}
	return n
}

// TestBansAtOnce: of two who ban the same at once, and of one who lifts the ban
// meanwhile, the last has their way, also after a restart.
func TestBansAtOnce(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string]struct{ ban, again, lift string }{
		"a name": {"#ban carol 100000", "#ban carol 200000", "#unban carol"},
		"a net":  {"#ban 192.0.2.0/24", "#ban 192.0.2.7/24 100000", "#unban 192.0.2.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(b *bubble) {
				b.guest("bob").Ask("#createlogin carol pw real mail", "@status 0")
				synctest.Wait()
				slow := &gatedStore{b.bans.store, make(chan struct{})}
				b.bans.store = slow
				one, other := b.dialHost(), b.dialHost()
				one.Send(lines.ban)
				synctest.Wait()
				other.Send(lines.again)
				synctest.Wait()
				close(slow.may)
				one.Expect("@status 0")
				other.Expect("@status 0")
				if n, all := b.storedBans(), b.bans.all(); n != 1 || len(all) != 1 || all[0].id != 2 {
					t.Errorf("%d bans are stored, those that hold are %+v", n, all)
				}
				one.Ask(lines.lift, "@status 0")
				if n := b.storedBans(); n != 0 {
					t.Errorf("%d bans are stored after it was lifted", n)
				}
				b = b.restart(time.Second)
				b.dialHost().Ask("#listbans", "@ret #listbans 0")
			})
		})
	}
}

// TestUnbanDuringBan: a ban is lifted while another one takes its place.
func TestUnbanDuringBan(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		one, other := b.dialHost(), b.dialHost()
		one.Ask("#ban 192.0.2.1 100", "@status 0")
		synctest.Wait()
		slow := &gatedStore{b.bans.store, make(chan struct{})}
		b.bans.store = slow
		one.Send("#ban 192.0.2.1 200")
		synctest.Wait()
		other.Send("#unban 192.0.2.1")
		synctest.Wait()
		close(slow.may)
		one.Expect("@status 0")
		other.Expect("@status 0")
		if n := b.storedBans(); n != 0 {
			t.Errorf("%d bans are stored after it was lifted", n)
		}
	})
}

// TestBanReplacedByHalf: the power is cut after a ban is stored and before the one
// whose place it takes is deleted. The newer one holds, and is the only one.
func TestBanReplacedByHalf(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		for _, key := range []banKey{{what: banName, name: "carol"}, {what: banAll}} {
			for _, reason := range []string{"first", "second", "third"} {
				old := &ban{key: key, target: key.name, by: "root", reason: reason, ends: never}
				if reason == "third" { // which may be shorter
					old.ends = b.clock.now() + 3_600_000
				}
				if err := b.store.Add(&store.Record{Kind: store.Ban, Ends: old.ends, Head: old.pack()}); err != nil {
					t.Fatal(err)
				}
			}
		}
		b = b.restart(time.Second)
		if n := b.storedBans(); n != 2 {
			t.Errorf("%d bans are stored, want 2", n)
		}
		carol, all := b.bans.find(banKey{what: banName, name: "carol"}), b.bans.suspended.Load()
		if carol == nil || all == nil || carol.reason != "third" || all.reason != "third" {
			t.Fatalf("the bans that hold are %+v and %+v", carol, all)
		}
		b.dialHost().Ask("#unban carol", "@status 0")
		b.pass(time.Hour)
		if n := b.storedBans(); n != 0 {
			t.Errorf("%d bans are stored after one was lifted and the other is over", n)
		}
		b = b.restart(time.Second)
		b.guest("carol")
	})
}

// TestBanReplacedOnBadDisk: an earlier ban that could not be deleted goes before the one
// that has taken its place: while that fails, this one holds.
func TestBanReplacedOnBadDisk(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		host := b.dialHost()
		broken := &refusingStore{Store: b.bans.store}
		synctest.Wait()
		b.bans.store = broken
		host.Ask("#ban 192.0.2.1 100000", "@status 0")
		broken.refuses.Store(true)
		host.Ask("#ban 192.0.2.1", "@status 0")
		host.Ask("#ban 192.0.2.1 200000", "@status 0")
		host.Ask("#unban 192.0.2.1", "@status -1")
		if n := b.storedBans(); n != 3 || len(b.bans.all()) != 1 {
			t.Errorf("%d bans are stored, %d hold", n, len(b.bans.all()))
		}
		broken.refuses.Store(false)
		host.Ask("#unban 192.0.2.1", "@status 0")
		if n := b.storedBans(); n != 0 {
			t.Errorf("%d bans are stored after it was lifted", n)
		}
	})
}

// TestBanOfWhoIsLoggingIn: somebody is banned who has a name already, but is still
// somebody else.
func TestBanOfWhoIsLoggingIn(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	host, c := ts.dialHost(), ts.Guest("carol")
	c.Ask("#createroom den", "@status 0")
	c.Ask("#changeroom den", "@status 0")
	den := ts.rooms.find("den")
	den.mu.Lock() // carol cannot leave it
	c.Send("#login anon eve")
	wire.Until(t, "the name is taken", func() bool { return ts.findOnline("eve") != nil })
	host.Ask("#ban Eve", "@status 0")
	den.mu.Unlock()
	c.Expect(`@mess #warning "you are banned"`, "@status 3005")
	host.Ask("#listbans", "@ret #listbans 1", `Eve 0 Host ""`)
	c.Ask("#login anon carol", "@status 0")
}

// TestBanOfOldName: an account that has long had a name that reads as an address keeps
// it, and is not banned by that word; a ban of the name from then can be lifted.
func TestBanOfOldName(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	v, err := makeVerifier("pw", []byte("salt"), 1)
	if err != nil {
		t.Fatal(err)
	}
	n := name{"192.0.2.20", "192.0.2.20"}
	r := accountRecord(n, &accountBody{verifier: v})
	if err := ts.store.Add(&r); err != nil {
		t.Fatal(err)
	}
	ts = ts.restart()
	host, c := ts.dialHost(), ts.Dial()
	c.Ask("#login regd 192.0.2.20 pw", "@status 0")
	host.Ask("#ban 192.0.2.20", "@status 0")
	c.Ask("#whoami", "@ret #whoami 192.0.2.20 Home 1 - 0")
	old := nameBan(n)
	old.by, old.ends = "root", never
	if err := ts.bans.add(old, 0); err != nil {
		t.Fatal(err)
	}
	host.Ask("#unban 192.0.2.20", "@status 0")
	host.Ask("#listbans", "@ret #listbans 1", `192.0.2.20 0 root ""`)
	host.Ask("#unban 192.0.2.20", "@status 0")
	host.Ask("#unban 192.0.2.20", "@status -3")
}

// TestBannedIsNotObeyed: nothing is done for a user after the ban has been answered,
// nor what the server has received and not begun.
func TestBannedIsNotObeyed(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	host, bob := ts.dialHost(), ts.Guest("bob")
	for i, end := range []string{"#ban carol", "#kick carol", "#ban carol 60 spam"} {
		c := ts.Guest("carol")
		c.Ask(fmt.Sprint("#createroom den", i), "@status 0")
		den := ts.rooms.find(fmt.Sprint("den", i))
		c.Ask(fmt.Sprint("#changeroom den", i), "@status 0")
		den.mu.Lock() // carol cannot leave it
		leave := sync.OnceFunc(den.mu.Unlock)
		t.Cleanup(leave)
		c.Raw(fmt.Sprintf("#changeroom Home\n#createroom late%d\n#broadcast late\n", i))
		wire.Until(t, "carol is on the way", func() bool { return ts.findOnline("carol").entering.Load() != nil })
		host.Ask(end, "@status 0")
		leave()
		_, _ = c.Conn.Write([]byte("#changeroom Home\n#broadcast later\n")) // the connection may be over
		for _, line := range ended(c) {
			if line != "@status 0" && !strings.HasPrefix(line, "@mess #warning ") {
				t.Errorf("%s: carol got %q", end, line)
			}
		}
		if ts.rooms.find(fmt.Sprint("late", i)) != nil {
			t.Errorf("%s: carol made a room afterwards", end)
		}
		if heard := bob.Barrier(); len(heard) > 0 {
			t.Errorf("%s: bob heard %q", end, heard)
		}
		if i == 0 {
			host.Ask("#unban carol", "@status 0")
		}
	}
}

// TestQuitIsNeverRefused: past the speed limit, with words, while the server is
// suspended.
func TestQuitIsNeverRefused(t *testing.T) {
	t.Parallel()
	ts := startServer(t, func(c *config) { c.Limits.CommandsPerSecond, c.Limits.CommandBurst = 1, 2 })
	host := ts.dialHost()
	for _, login := range []string{"", "#login anon carol\n"} {
		for _, quit := range []string{"#quit", "#QUIT now", "#quit \"that was\" all folks"} {
			c := ts.Dial()
			c.Raw(login + "#ping\n#ping\n#ping\n" + quit + "\n#ping\n")
			if got := ended(c); len(got) == 0 || got[len(got)-1] != "@status 0" || !slices.Contains(got, "@status 3505") {
				t.Errorf("%s: %q", quit, got)
			}
		}
	}
	c := ts.Guest("carol")
	const suspended = `@mess #announce Host "the server is suspended for 5 min"`
	host.Ask("#suspend 5", suspended, "@status 0")
	c.Expect(suspended)
	c.Ask("#quit", "@status 0")
	c.Ended()
}
