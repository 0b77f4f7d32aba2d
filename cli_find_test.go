package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"homeroom/mdns"
)

// TestFindUsage: what `homeroom find` says to a time that is none.
func TestFindUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"find", "-time", "0s"}, {"find", "-time", "-1s"}, {"find", "-time", "soon"}, {"find", "everything"}} {
		var out bytes.Buffer
		if code := runMain(environment{ctx: t.Context(), stdout: &out, stderr: &out}, args); code != exitUsage || out.Len() == 0 {
			t.Errorf("%q: exit code %d, %s", args, code, out.String())
		}
	}
}

// TestFoundIsShown: the table of what was found, with names that would like to do
// something to the terminal.
func TestFoundIsShown(t *testing.T) {
	t.Parallel()
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1%eth0")}
	var out bytes.Buffer
	err := writeFound(&out, []mdns.Entry{
		{Instance: "\x1b[2Jall\tgone\r\n\u202e\xff", Host: "pi\x1b.local", Port: 6500, Text: []string{"version=" + strings.Repeat("\x07", 200), "tls"}, Addrs: addrs},
		{Instance: "Homeroom", Host: "homeroom.local", Port: 6500, Text: []string{"TLS=6501", "version=0.1.0"}, Addrs: addrs},
		{Instance: "Deaf", Host: "deaf.local", Port: 6500},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `NAME HOST PORT TLS VERSION ADDRESSES
\x1b[2Jall\tgone\r\n\u202e\xff pi\x1b.local 6500 - \a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a 192.0.2.1 fe80::1%eth0
Homeroom homeroom.local 6500 6501 0.1.0 192.0.2.1 fe80::1%eth0
Deaf deaf.local 6500 - - -
`
	if got := out.String(); strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
