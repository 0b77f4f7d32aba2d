package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPipelinedCommandsInOrder sends many commands in one write.
func TestPipelinedCommandsInOrder(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.guest("alice")
	var send strings.Builder
	var want []string
	for i := range 400 {
		fmt.Fprintf(&send, "#ping %d\r\n#broadcast \"%d\"\n#nothing\r\n#postmessage x 0 2\r\n#quit\n#quit\r\n#sendto bob %d\n", i, i, i)
		want = append(want, fmt.Sprintf("@ret #ping %d", i), fmt.Sprintf(`@mess #broadcast alice "%d"`, i),
			"@status 0", "@status 3502", "@status 3200", "@status -3")
	}
	alice.raw(send.String())
	alice.expect(want...)
}

func TestCommandByteByByte(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice, bob := srv.guest("alice"), srv.guest("bob")
	for _, b := range []byte("#broadcast \"h\xc3\xa9llo\"\r\n\r\n#ping x\r\n") {
		alice.raw(string([]byte{b}))
	}
	alice.expect(`@mess #broadcast alice "héllo"`, "@status 0", "@ret #ping x")
	bob.expect(`@mess #broadcast alice "héllo"`)
}

func TestRoomsByName(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.guest("alice")
	for _, name := range []string{"zebra", "Able", "home2", "aa", "10", "9", "été", "Baker", "~", `"  Inner   Space "`, "able2"} {
		alice.ask("#createroom "+name, "@status 0")
	}
	alice.ask("#rmroom baker", "@status 0")
	alice.send("#listrooms")
	var names []string
	for _, line := range alice.barrier()[1:] {
		names = append(names, splitWords(line, nil)[0])
	}
	want := []string{"Home", "10", "9", "aa", "Able", "able2", "home2", "Inner Space", "zebra", "~", "été"}
	if !slices.Equal(names, want) {
		t.Errorf("rooms are listed as %q, want %q", names, want)
	}
}

// userNames is who "#listusers" lists.
func userNames(c *client) (names []string) {
	c.t.Helper()
	c.send("#listusers")
	for _, line := range c.barrier()[1:] {
		names = append(names, splitWords(line, nil)[0])
	}
	return names
}

// TestUsersInOrderOfEntering lets many users come, some go, and some come back.
func TestUsersInOrderOfEntering(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.guest("alice")
	alice.ask("#createroom den", "@status 0")
	clients := map[string]*client{"alice": alice}
	want := []string{"alice"}
	for i := range 40 {
		name := fmt.Sprintf("user%d", i)
		clients[name] = srv.guest(name)
		want = append(want, name)
	}
	move := func(room string, names []string) {
		for _, name := range names {
			clients[name].ask("#changeroom "+room, "@status 0")
		}
	}
	check := func() {
		t.Helper()
		if got := userNames(alice); !slices.Equal(got, want) {
			t.Errorf("users are listed as %q, want %q", got, want)
		}
	}
	check()
	gone := slices.Concat(want[2:25], want[31:40])
	move("den", gone)
	want = slices.DeleteFunc(slices.Clone(want), func(name string) bool { return slices.Contains(gone, name) })
	check()
	slices.Reverse(gone)
	move("home", gone)
	want = append(want, gone...)
	check()
}

// TestRoomNameEdges is the 30 characters of a name, however many bytes.
func TestRoomNameEdges(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.guest("alice")
	for _, char := range []string{"a", "日", "\U0001f600", "e\u0301"} {
		alice.ask("#createroom "+strings.Repeat(char, 30), "@status 0")
		alice.ask("#createroom "+strings.Repeat(char, 31), "@status -4")
		alice.ask("#postmessage "+strings.Repeat(char, 30)+"\r\ntext", "@status 3200")
	}
	alice.ask("#createroom "+strings.Repeat("é", 30), "@status 3102")
}

// TestGuestOwnsUntilItLeaves is what becomes of a guest's rooms and groups.
func TestGuestOwnsUntilItLeaves(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice, bob := srv.guest("alice"), srv.guest("bob")
	bob.ask("#createroom den", "@status 0")
	bob.ask("#createroom attic sesame", "@status 0")
	bob.ask(`#creategroup talk "" anon`, "@status 0")
	bob.ask("#login anon bob", "@status 0") // the same guest
	bob.ask("#rmroom attic", "@status 0")
	wantOwners(alice, "bob", "bob")
	bob.ask("#quit", "@status 0")
	bob.ended()
	wantOwners(alice, "-", "-")

	bob = srv.guest("bob") // another one
	wantOwners(bob, "-", "-")
	bob.ask("#rmroom den", "@status 3103")
	bob.ask("#changeroom den", "@status 0")
	bob.ask("#joingroup talk", "@status 0")
}

// wantOwners checks who owns the room "den" and the first group.
func wantOwners(c *client, room, group string) {
	c.t.Helper()
	c.send("#listrooms", "#listgroups")
	lines := c.barrier()
	den := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "den ") })
	last := lines[len(lines)-1]
	if den < 0 || splitWords(lines[den], nil)[1] != room || splitWords(last, nil)[1] != group {
		c.t.Errorf("lists show %q, want the owners %s and %s", lines, room, group)
	}
}

// untilAdmitted connects until the server has noticed that another has left.
func untilAdmitted(srv *testServer, refusal string) {
	srv.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		line := srv.connect().read()
		if strings.HasPrefix(line, "@mess #hello ") {
			return
		}
		if line != refusal || time.Now().After(deadline) {
			srv.t.Fatalf("after one left, the next gets %q", line)
		}
	}
}

// TestConnectionLimits fills each limit, sees the next connection refused, makes
// room for one and gets in.
func TestConnectionLimits(t *testing.T) {
	for name, c := range map[string]struct {
		limit   func(*config)
		refusal string
		waiting bool // only those that have not logged in count
	}{
		"in all":              {func(c *config) { c.Limits.Connections = 3 }, "the server is full; try again later", false},
		"per address":         {func(c *config) { c.Limits.ConnectionsPerIP = 3 }, "too many connections from your address", false},
		"waiting":             {func(c *config) { c.Limits.Waiting = 3 }, "too many connections are waiting to log in; try again later", true},
		"waiting per address": {func(c *config) { c.Limits.WaitingPerIP = 3 }, "too many connections from your address are waiting to log in", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := startServer(t, c.limit)
			first, refusal := srv.dial(), `@mess #warning "`+c.refusal+`"`
			srv.dial()
			srv.dial()
			for range 3 {
				srv.connect().ended(refusal)
			}
			first.ask("#login anon alice", "@status 0")
			if c.waiting {
				srv.dial()
				first.ask("#login anon bob", "@status 0") // counts once
			}
			srv.connect().ended(refusal)
			first.ask("#quit", "@status 0")
			first.ended()
			first.conn.Close()
			if !c.waiting {
				untilAdmitted(srv, refusal)
			}
			srv.connect().ended(refusal)
		})
	}
}

// TestFlood sends far more commands than are allowed.
func TestFlood(t *testing.T) {
	t.Parallel()
	srv := startServer(t, func(c *config) { c.Limits.CommandsPerSecond, c.Limits.CommandBurst = 1, 10 })
	alice, bob := srv.dial(), srv.dial()
	alice.raw(strings.Repeat("#ping x\n", 100))
	alice.expect(slices.Repeat([]string{"@ret #ping x"}, 10)...)
	alice.expect(slices.Repeat([]string{"@status 3505"}, 10)...)
	alice.ended(`@mess #warning "too many commands; the connection ends"`)
	bob.ask("#ping x", "@ret #ping x") // each has a budget of its own
}

// TestLongRoomListIsNotInterrupted lists 300 rooms while others talk.
func TestLongRoomListIsNotInterrupted(t *testing.T) {
	t.Parallel()
	srv := startServer(t, func(c *config) { c.Persist.Mode = "periodic" })
	alice, bob := srv.guest("alice"), srv.guest("bob")
	var rooms strings.Builder
	for i := range 300 {
		fmt.Fprintf(&rooms, "#createroom \"a room with a longer name %03d\"\n", i)
	}
	alice.raw(rooms.String())
	alice.expect(slices.Repeat([]string{"@status 0"}, 300)...)
	for range 20 {
		bob.raw(strings.Repeat("#broadcast hi\n", 20))
		alice.send("#listrooms")
	}
	heard := 0
	for range 20 {
		heard += readList(alice, "@ret #listrooms 301", 301, "Home ", `"a room with `)
	}
	for _, line := range alice.barrier() {
		if line == `@mess #broadcast bob "hi"` {
			heard++
		}
	}
	bob.barrier() // all of it is said
	heard += len(alice.barrier())
	if heard != 400 {
		t.Errorf("alice heard %d broadcasts, want 400", heard)
	}
}

// readList reads a long reply, each of whose lines starts in one of these ways,
// and returns how many broadcasts came before it.
func readList(c *client, head string, lines int, starts ...string) (before int) {
	c.t.Helper()
	line := c.read()
	for ; strings.HasPrefix(line, "@mess #broadcast "); line = c.read() {
		before++
	}
	if line != head {
		c.t.Fatalf("got %q, want %q", line, head)
	}
	for i := range lines {
		line := c.read()
		if !slices.ContainsFunc(starts, func(start string) bool { return strings.HasPrefix(line, start) }) {
			c.t.Fatalf("line %d of %q is %q", i, head, line)
		}
	}
	return before
}
