package main

import (
	"testing"
	"testing/synctest"

	"homeroom/test/wire"
)

// TestDoorChangesMeanwhile: while a room's password is being checked, its owner changes
// the door. Whoever it keeps out then stays where they were.
func TestDoorChangesMeanwhile(t *testing.T) {
	t.Parallel()
	other, err := makeVerifier("other", randomBytes(saltBytes), 16)
	if err != nil {
		t.Fatal(err)
	}
	const outside, inside = "@ret #whoami bob lobby 1 - 0", "@ret #whoami bob den 2 - 0"
	for name, test := range map[string]struct {
		change func(*bubble, *wire.Client, *room)
		want   [2]string // to #changeroom and to #whoami
	}{
		"banned": {func(_ *bubble, owner *wire.Client, _ *room) {
			owner.Ask("#roomban bob", "@status 0")
		}, [2]string{"@status 3005", outside}},
		"another banned": {func(_ *bubble, owner *wire.Client, _ *room) {
			owner.Ask("#roomban carol", "@status 0")
		}, [2]string{"@status 0", inside}},
		"another password": {func(b *bubble, _ *wire.Client, den *room) {
			if err := b.findOnline("owner").changeDoor(den, func(d *door) error { d.lock = other; return nil }); err != nil {
				t.Error(err)
			}
		}, [2]string{"@status 3101", outside}},
		"public": {func(_ *bubble, owner *wire.Client, _ *room) {
			owner.Ask(`#roompass ""`, "@status 0")
		}, [2]string{"@status 0", inside}},
		"given away": {func(_ *bubble, owner *wire.Client, _ *room) {
			owner.Ask("#roomgive carol", "@status 0")
		}, [2]string{"@status 0", inside}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(b *bubble) {
				owner, bob := b.guest("owner"), b.guest("bob")
				b.guest("carol")
				owner.Ask("#createroom den sesame", "@status 0")
				owner.Ask("#changeroom den sesame", "@status 0")
				bob.Ask("#createroom lobby", "@status 0")
				bob.Ask("#changeroom lobby", "@status 0")
				release := b.doors.hasher.hold()
				bob.Send("#changeroom den sesame")
				synctest.Wait()
				test.change(b, owner, b.rooms.find("den"))
				release()
				bob.Expect(test.want[0])
				bob.Ask("#whoami", test.want[1])
			})
		})
	}
}

// TestRoomBanOnTheWay: somebody is banned who has been let in, but is not yet seen in
// the room.
func TestRoomBanOnTheWay(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	owner, bob := ts.Guest("owner"), ts.Guest("bob")
	owner.Ask("#createroom den", "@status 0")
	owner.Ask("#changeroom den", "@status 0")
	bob.Ask("#createroom lobby", "@status 0")
	bob.Ask("#changeroom lobby", "@status 0")
	lobby, den := ts.rooms.find("lobby"), ts.rooms.find("den")
	lobby.mu.Lock() // bob cannot leave it
	bob.Send("#changeroom den")
	wire.Until(t, "bob is let in", func() bool {
		users, _ := den.state(0)
		return users == 2
	})
	owner.Ask("#roomban bob", "@status 0")
	lobby.mu.Unlock()
	bob.Expect(`@mess #warning "you were banned from den by owner"`, "@status 0")
	bob.Ask("#whoami", "@ret #whoami bob Home 1 - 0")
	bob.Ask("#changeroom den", "@status 3005")
	owner.Ask("#listusers", "@ret #listusers 1", "owner anon")
}

// TestDoorsAreNotGuessed: wrong passwords of rooms and groups are counted for each
// address, apart from those of accounts; rooms without a password are not concerned.
func TestDoorsAreNotGuessed(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		owner, thief := b.guest("owner"), b.dialFrom("203.0.113.9")
		owner.Ask("#createlogin alice pw real mail", "@status 0")
		owner.Ask("#createroom den 7391", "@status 0")
		owner.Ask("#createroom attic 7391", "@status 0")
		owner.Ask("#createroom hall", "@status 0")
		owner.Ask("#creategroup news 7391 anon", "@status 0")
		thief.Ask("#login anon thief", "@status 0")
		for range 10 { // these are no guesses
			thief.Ask("#changeroom den", "@status 3101")
			thief.Ask(`#changeroom den ""`, "@status 3101")
			thief.Ask("#rmroom den 0000", "@status 3103")
		}
		thief.Ask("#changeroom den 0000", "@status 3101")
		thief.Ask("#joingroup news 0000", "@status 3201")
		thief.Ask("#changeroom attic 0000", "@status 3101")
		for line, elsewhere := range map[string]string{
			"#changeroom den 7391": "@status 0", "#changeroom attic 0000": "@status 3101", "#changegroup news 7391": "@status 0",
		} {
			thief.Ask(line, "@status 3006")
			b.dialFromGuest("203.0.113.9").Ask(line, "@status 3006") // another connection, the same address
			b.dialFromGuest("203.0.113.10").Ask(line, elsewhere)
		}
		thief.Ask("#changeroom hall", "@status 0")
		thief.WantAuth("alice", "wrong", "@status 3002") // logins are counted by themselves
		thief.WantAuth("alice", "pw", "")
		b.pass(longestWait)
		thief.Ask("#changeroom den 7391", "@status 0")
	}, func(c *config) {
		c.Limits.LoginsPerMinute = 3
		c.Expiry.Room.Duration, c.Expiry.Group.Duration = 2*longestWait, 2*longestWait
	})
}

// TestLoginsAndDoorsApart: an address that has guessed accounts' passwords may still go
// to a room, and an owner who mistypes the room's password may delete it without one.
func TestLoginsAndDoorsApart(t *testing.T) {
	t.Parallel()
	srv := startServer(t, func(c *config) { c.Limits.LoginsPerMinute = 2 })
	owner := srv.Guest("owner")
	owner.Ask("#createroom den sesame", "@status 0")
	owner.Ask("#login regd nobody wrong", "@status 3001")
	owner.Ask("#login regd nobody wrong", "@status 3001")
	owner.Ask("#login regd nobody wrong", "@status 3006")
	owner.Ask("#changeroom den sesame", "@status 0")
	owner.Ask("#changeroom Home", "@status 0")
	owner.Ask("#rmroom den wrong", "@status 3101")
	owner.Ask("#rmroom den wrong", "@status 3101")
	owner.Ask("#rmroom den sesame", "@status 3006")
	owner.Ask("#rmroom den", "@status 0")
}
