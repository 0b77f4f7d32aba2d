package main

import (
	"fmt"
	"strings"
)

// Person mode. A connection whose first line is a name belongs to a person at a
// keyboard, who is a session as all are: what is typed becomes words of the same
// commands, and only the look of what comes back differs. Text is said in the room,
// /words are commands, and a line that starts with # is still answered as programs are.
//
// The screen is the terminal's own: whole lines come in and whole lines go out.

// firstHint tells whoever connects what to type.
const firstHint = "type your name and press Enter; programs: #help"

// opening handles the first line of a connection that is no program's. It reports
// whether it was one: a name that a guest may have, or nothing at all.
func (s *session) opening(line string, work *scratch) (taken bool, err error) {
	line = strings.Trim(line, "\ufeff \t")
	switch {
	case s.host || s.greeted || strings.HasPrefix(line, "#"):
		return false, nil
	case line == "":
		if s.hinted {
			return true, nil
		}
		s.hinted = true
		return true, s.send(warningFrame(firstHint).show(lookProgram))
	}
	if _, err := newUserName(line); err != nil {
		return false, nil
	}
	s.greeted, s.person = true, true
	s.out.setLook(lookPlain)
	return true, s.personLine(line, work)
}

// personLine runs a line that a person has typed.
func (s *session) personLine(line string, work *scratch) error {
	r := &work.reply
	r.look = lookPlain
	line = strings.Trim(line, " \t")
	words := splitWords(line, work.words[:0])
	switch {
	case len(words) == 0:
		return nil
	case line[0] == '#':
		if s.srv.findCommand(words[0]) != nil {
			r.look = lookProgram
		}
		return s.command(words, r)
	case line[0] == '/':
		if c := s.srv.findSlash(strings.ToLower(words[0])); c != nil {
			words[0] = c.name
		}
		return s.command(words, r)
	case s.who.Load() == nil:
		return s.enterName(line, r)
	}
	return s.command([]string{"#broadcast", line}, r)
}

// findSlash looks up a command by the word that people have for it; nil: there is none.
func (srv *server) findSlash(word string) *command {
	for _, c := range srv.commands {
		if c.slash == word {
			return c
		}
	}
	return nil
}

// enterName logs a person in as a guest. Words that people type to get out or to get
// help are asked about.
func (s *session) enterName(line string, r *reply) error {
	switch strings.ToLower(line) {
	case "quit", "exit", "help":
		return r.sentence("/" + strings.ToLower(line) + " is a command here, with its slash. Type your name and press Enter.")
	}
	return s.command([]string{"#login", "anon", line}, r)
}

// sentence answers a person.
func (r *reply) sentence(text string) error { return r.s.send(append([]byte(text), '\r', '\n')) }

// statusSentence answers a person with what a status means for a command (nil: there is
// none), and what to do about it. A success needs no words unless the command has some.
func (r *reply) statusSentence(code status) error {
	c := r.command
	if code == statusOK {
		if c == nil || c.done == nil {
			return nil
		}
		return r.sentence(c.done(r.s))
	}
	text := code.text()
	text = strings.ToUpper(text[:1]) + text[1:] + "."
	switch {
	case code == statusNoCommand:
		text = "There is no such command. /help shows what there is."
	case code == statusNoLogin:
		text = "Type your name and press Enter first."
	case code == statusFlood:
		text = "That was too fast; wait a moment."
	case c == nil:
	case c.name == "#login":
		text += " Type another name and press Enter."
	case code == statusBadArgs && c.slash != "":
		text = "Type it like this: " + strings.TrimSpace(c.slash+" "+c.args)
	case code == statusNoRoom:
		text += " /rooms shows what there is."
	case code == statusNotFound:
		text = "Nobody of that name is here. /who shows who is."
	}
	return r.sentence(text)
}

// helpPerson is /help.
func (s *session) helpPerson(r *reply) {
	r.text("Type to talk to everybody in your room. Besides:")
	for _, c := range commandRows() {
		if c.slash != "" {
			r.text(fmt.Sprintf("  %-36s %s", strings.TrimSpace(c.slash+" "+c.args), c.help))
		}
	}
}

// welcome greets a person who has just logged in.
func welcome(s *session) string {
	return "Hello " + s.shownName() + ". You are " + s.company() + "\r\nType to talk.  /help shows what else there is, /quit leaves."
}

// arrival says where a person has gone.
func arrival(s *session) string { return "You are " + s.company() }

// mostNamed is how many of a room's users are named to somebody who comes in.
const mostNamed = 8

// company is the room that a person is in, and who is there.
func (s *session) company() string {
	room := s.room()
	if room == nil {
		return "in no room."
	}
	var names []string
	for _, u := range room.users() {
		if u != s.who.Load() {
			names = append(names, u.name.shown)
		}
	}
	text := "in " + room.name.shown
	switch more := len(names) - mostNamed; {
	case len(names) == 0:
		return text + "; nobody else is."
	case more > 0:
		return fmt.Sprintf("%s with %s and %d others.", text, strings.Join(names[:mostNamed], ", "), more)
	}
	return text + " with " + strings.Join(names, ", ") + "."
}

// personRow is one line of "#listusers" for people.
func personRow(cells []cell) string {
	if cells[1].text == whomWord(false) {
		return "  " + cells[0].text + ", a guest"
	}
	return "  " + cells[0].text
}

// roomRow is one line of "#listrooms" for people.
func roomRow(cells []cell) string {
	text := fmt.Sprintf("  %s: %d here", cells[0].text, cells[2].num)
	if cells[4].text == "priv" {
		text += ", needs a password"
	}
	if cells[5].text == whomWord(true) {
		text += ", needs an account"
	}
	return text
}
