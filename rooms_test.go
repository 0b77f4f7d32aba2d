package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"homeroom/test/wire"
)

// TestPipelinedCommandsInOrder sends many commands in one write.
func TestPipelinedCommandsInOrder(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.Guest("alice")
	var send strings.Builder
	var want []string
	for i := range 400 {
		fmt.Fprintf(&send, "#ping %d\r\n#broadcast \"%d\"\n#nothing\r\n#postmessage x 0 2\r\n#quit\n#quit\r\n#sendto bob %d\n", i, i, i)
		want = append(want, fmt.Sprintf("@ret #ping %d", i), fmt.Sprintf(`@mess #broadcast alice "%d"`, i),
			"@status 0", "@status 3502", "@status 3200", "@status -3")
	}
	alice.Raw(send.String())
	alice.Expect(want...)
}

func TestCommandByteByByte(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice, bob := srv.Guest("alice"), srv.Guest("bob")
	for _, b := range []byte("#broadcast \"h\xc3\xa9llo\"\r\n\r\n#ping x\r\n") {
		alice.Raw(string([]byte{b}))
	}
	alice.Expect(`@mess #broadcast alice "héllo"`, "@status 0", "@ret #ping x")
	bob.Expect(`@mess #broadcast alice "héllo"`)
}

func TestRoomsByName(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.Guest("alice")
	for _, name := range []string{"zebra", "Able", "home2", "aa", "10", "9", "été", "Baker", "~", `"  Inner   Space "`, "able2"} {
		alice.Ask("#createroom "+name, "@status 0")
	}
	alice.Ask("#rmroom baker", "@status 0")
	alice.Send("#listrooms")
	var names []string
	for _, line := range alice.Barrier()[1:] {
		names = append(names, splitWords(line, nil)[0])
	}
	want := []string{"Home", "10", "9", "aa", "Able", "able2", "home2", "Inner Space", "zebra", "~", "été"}
	if !slices.Equal(names, want) {
		t.Errorf("rooms are listed as %q, want %q", names, want)
	}
}

// userNames is who "#listusers" lists.
func userNames(c *wire.Client) (names []string) {
	c.T.Helper()
	c.Send("#listusers")
	for _, line := range c.Barrier()[1:] {
		names = append(names, splitWords(line, nil)[0])
	}
	return names
}

// TestUsersInOrderOfEntering lets many users come, some go, and some come back.
func TestUsersInOrderOfEntering(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.Guest("alice")
	alice.Ask("#createroom den", "@status 0")
	clients := map[string]*wire.Client{"alice": alice}
	want := []string{"alice"}
	for i := range 40 {
		name := fmt.Sprintf("user%d", i)
		clients[name] = srv.Guest(name)
		want = append(want, name)
	}
	move := func(room string, names []string) {
		for _, name := range names {
			clients[name].Ask("#changeroom "+room, "@status 0")
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
	alice := srv.Guest("alice")
	for _, char := range []string{"a", "日", "\U0001f600", "e\u0301"} {
		alice.Ask("#createroom "+strings.Repeat(char, 30), "@status 0")
		alice.Ask("#createroom "+strings.Repeat(char, 31), "@status -4")
		alice.Ask("#postmessage "+strings.Repeat(char, 30)+"\r\ntext", "@status 3200")
	}
	alice.Ask("#createroom "+strings.Repeat("é", 30), "@status 3102")
}

// TestGuestOwnsUntilItLeaves is what becomes of a guest's rooms and groups.
func TestGuestOwnsUntilItLeaves(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice, bob := srv.Guest("alice"), srv.Guest("bob")
	bob.Ask("#createroom den", "@status 0")
	bob.Ask("#createroom attic sesame", "@status 0")
	bob.Ask(`#creategroup talk "" anon`, "@status 0")
	bob.Ask("#login anon bob", "@status 0") // the same guest
	bob.Ask("#rmroom attic", "@status 0")
	wantOwners(alice, "bob", "bob")
	bob.Ask("#quit", "@status 0")
	bob.Ended()
	wantOwners(alice, "-", "-")

	bob = srv.Guest("bob") // another one
	wantOwners(bob, "-", "-")
	bob.Ask("#rmroom den", "@status 3103")
	bob.Ask("#changeroom den", "@status 0")
	bob.Ask("#joingroup talk", "@status 0")
}

// wantOwners checks who owns the room "den" and the first group.
func wantOwners(c *wire.Client, room, group string) {
	c.T.Helper()
	c.Send("#listrooms", "#listgroups")
	lines := c.Barrier()
	den := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "den ") })
	last := lines[len(lines)-1]
	if den < 0 || splitWords(lines[den], nil)[1] != room || splitWords(last, nil)[1] != group {
		c.T.Errorf("lists show %q, want the owners %s and %s", lines, room, group)
	}
}

// untilAdmitted connects until the server has noticed that another has left.
func untilAdmitted(srv *testServer, refusal string) {
	srv.T.Helper()
	for deadline := time.Now().Add(wire.Patience); ; {
		line := srv.Connect().Read()
		if strings.HasPrefix(line, "@mess #hello ") {
			return
		}
		if line != refusal || time.Now().After(deadline) {
			srv.T.Fatalf("after one left, the next gets %q", line)
		}
	}
}

// TestConnectionLimits fills each limit, sees the next connection refused, makes
// room for one and gets in.
func TestConnectionLimits(t *testing.T) {
	for name, c := range map[string]struct {
		limit   func(*config)
		refusal string
	}{
		"in all":      {func(c *config) { c.Limits.Connections = 3 }, "the server is full; try again later"},
		"per address": {func(c *config) { c.Limits.ConnectionsPerIP = 3 }, "too many connections from your address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := startServer(t, c.limit)
			first, refusal := srv.Dial(), `@mess #warning "`+c.refusal+`"`
			srv.Dial()
			srv.Dial()
			for range 3 {
				srv.Connect().Ended(refusal)
			}
			first.Ask("#login anon alice", "@status 0")
			srv.Connect().Ended(refusal)
			first.Ask("#quit", "@status 0")
			first.Ended()
			first.Conn.Close()
			untilAdmitted(srv, refusal)
			srv.Connect().Ended(refusal)
		})
	}
}

// TestFlood sends far more commands than are allowed.
func TestFlood(t *testing.T) {
	t.Parallel()
	srv := startServer(t, func(c *config) { c.Limits.CommandsPerSecond, c.Limits.CommandBurst = 1, 10 })
	alice, bob := srv.Dial(), srv.Dial()
	alice.Raw(strings.Repeat("#ping x\n", 100))
	alice.Expect(slices.Repeat([]string{"@ret #ping x"}, 10)...)
	alice.Expect(slices.Repeat([]string{"@status 3505"}, 10)...)
	alice.Ended(`@mess #warning "too many commands; the connection ends"`)
	bob.Ask("#ping x", "@ret #ping x") // each has a budget of its own
}

// TestLongRoomListIsNotInterrupted lists 300 rooms while others talk.
func TestLongRoomListIsNotInterrupted(t *testing.T) {
	t.Parallel()
	srv := startServer(t, func(c *config) { c.Persist.Mode = "periodic" })
	alice, bob := srv.Guest("alice"), srv.Guest("bob")
	var rooms strings.Builder
	for i := range 300 {
		fmt.Fprintf(&rooms, "#createroom \"a room with a longer name %03d\"\n", i)
	}
	alice.Raw(rooms.String())
	alice.Expect(slices.Repeat([]string{"@status 0"}, 300)...)
	for range 20 {
		bob.Raw(strings.Repeat("#broadcast hi\n", 20))
		alice.Send("#listrooms")
	}
	heard := 0
	for range 20 {
		heard += readList(alice, "@ret #listrooms 301", 301, "Home ", `"a room with `)
	}
	for _, line := range alice.Barrier() {
		if line == `@mess #broadcast bob "hi"` {
			heard++
		}
	}
	bob.Barrier() // all of it is said
	heard += len(alice.Barrier())
	if heard != 400 {
		t.Errorf("alice heard %d broadcasts, want 400", heard)
	}
}

// readList reads a long reply, each of whose lines starts in one of these ways,
// and returns how many broadcasts came before it.
func readList(c *wire.Client, head string, lines int, starts ...string) (before int) {
	c.T.Helper()
	line := c.Read()
	for ; strings.HasPrefix(line, "@mess #broadcast "); line = c.Read() {
		before++
	}
	if line != head {
		c.T.Fatalf("got %q, want %q", line, head)
	}
	for i := range lines {
		line := c.Read()
		if !slices.ContainsFunc(starts, func(start string) bool { return strings.HasPrefix(line, start) }) {
			c.T.Fatalf("line %d of %q is %q", i, head, line)
		}
	}
	return before
}
