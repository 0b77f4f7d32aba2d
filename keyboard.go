package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

const keyboardHelp = `Plain text goes to everybody. Commands:
  HELP          this text
  LIST_USERS    who is logged in, and where
  KICK <user>   end a user's connection
  EXIT          stop the server
`

// keyboard takes lines from the server's own terminal until it ends; stop is
// called on EXIT.
func (srv *server) keyboard(in io.Reader, out io.Writer, stop func()) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(cleanLine(lines.Bytes()))
		if line == "" {
			continue
		}
		if strings.EqualFold(line, "EXIT") {
			stop()
			return
		}
		fmt.Fprint(out, srv.typed(line))
	}
}

// typed does what one line says and returns what to show for it.
func (srv *server) typed(line string) string {
	words := splitWords(line, nil)
	switch verb := strings.ToUpper(words[0]); {
	case verb == "HELP" && len(words) == 1:
		return keyboardHelp
	case verb == "LIST_USERS" && len(words) == 1:
		return srv.userTable()
	case words[0] == "KICK" || verb == "KICK" && len(words) == 2:
		if len(words) != 2 {
			return "KICK takes one user name\n"
		}
		return srv.kick(words[1])
	}
	srv.announce(messFrame("announce", hostName, line))
	return ""
}

// userTable lists who is logged in, for people to read.
func (srv *server) userTable() string {
	var b strings.Builder
	n := 0
	for _, p := range srv.rooms.all() {
		for _, u := range p.users() {
			n++
			fmt.Fprintf(&b, "%s (%s) in %s\n", u.name.shown, u.kind(), p.name.shown)
		}
	}
	fmt.Fprintf(&b, "%d logged in\n", n)
	return b.String()
}

// kick ends the connection of a user.
func (srv *server) kick(word string) string {
	s := srv.findOnline(word)
	if s == nil {
		return fmt.Sprintf("nobody is logged in as %s\n", word)
	}
	s.end(warningFrame("you were disconnected by the host"))
	return fmt.Sprintf("%s was disconnected\n", word)
}
