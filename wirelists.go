package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// listed asks for a list and returns the words of the line that begins with a
// name; nil: it is not on it.
func (c *client) listed(command, name string) []string {
	c.t.Helper()
	c.send(command)
	words := wordsOf(c.read())
	if len(words) != 3 || words[0] != "@ret" {
		c.t.Fatalf("%s: got %q", command, words)
	}
	n, _ := strconv.ParseInt(words[2], 10, 64)
	var found []string
	for range n {
		if words := wordsOf(c.read()); words[0] == name {
			found = words
		}
	}
	return found
}

// wantLeft expects a name on a list with so many seconds left, which are in its
// column; -1: not on it at all.
func (c *client) wantLeft(command, name string, want int64) {
	c.t.Helper()
	column := map[string]int{"#listrooms": 3, "#listgroups": 5, "#listmessages": 5}[command]
	words := c.listed(command, name)
	switch {
	case words == nil && want >= 0:
		c.t.Fatalf("%s does not show %s, want it with %d s", command, name, want)
	case words != nil && want < 0:
		c.t.Fatalf("%s shows %q, want it gone", command, words)
	case words != nil && words[column] != strconv.FormatInt(want, 10):
		c.t.Fatalf("%s shows %q, want %d s", command, words, want)
	}
}

// number asks for a status number.
func (c *client) number(what string) int64 {
	c.t.Helper()
	c.send("#" + what + "status")
	return statusNumber(c.t, c.read())
}

// statusNumber is the number in "@ret #<what>status <n>".
func statusNumber(t testing.TB, line string) int64 {
	words := wordsOf(line)
	if len(words) != 3 || !strings.HasSuffix(words[1], "status") {
		t.Errorf("got %q, want a status number", line)
		return 0
	}
	n, err := strconv.ParseInt(words[2], 10, 64)
	if err != nil || n <= 0 {
		t.Errorf("got %q, want a status number", line)
	}
	return n
}

// post posts a message and returns its number.
func (c *client) post(heading string, parent, secs int64) int64 {
	c.t.Helper()
	c.ask(fmt.Sprintf("#postmessage %s %d 1 %d\r\ntext", heading, parent, secs), "@status 0")
	id, _ := strconv.ParseInt(c.listed("#listmessages", heading)[2], 10, 64)
	return id
}

// groupID is the number of the group that the client is in.
func (c *client) groupID() int64 {
	c.t.Helper()
	c.send("#whoami")
	words := wordsOf(c.read())
	id, _ := strconv.ParseInt(words[len(words)-1], 10, 64)
	return id
}

var (
	word    = regexp.MustCompile(`"((?:[^"\\]|\\.)*)"|[^ \t]+`)
	escaped = regexp.MustCompile(`\\(.)`)
	escape  = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
)

// wordsOf splits a line into its words, and takes the quotes off.
func wordsOf(line string) (words []string) {
	for _, m := range word.FindAllStringSubmatch(line, -1) {
		if strings.HasPrefix(m[0], `"`) {
			m[0] = escaped.ReplaceAllString(m[1], "$1")
		}
		words = append(words, m[0])
	}
	return words
}

// quote is a word in quotes, as the protocol has them.
func quote(text string) string { return `"` + escape.Replace(text) + `"` }
