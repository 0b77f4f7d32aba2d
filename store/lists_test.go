package store

import (
	"regexp"
	"strings"
	"testing"
)

// TestListsAreInOrder: no statement sorts the messages that it finds, or looks through
// all that there are: each has an index to follow, whose order is the one that it wants.
func TestListsAreInOrder(t *testing.T) {
	t.Parallel()
	st := newStore(t, commitStore(t))
	texts := (&reader{}).texts()
	for stmt, text := range (&writeStmts{}).texts() {
		texts[stmt] = text
	}
	looked := 0
	for _, text := range texts {
		if strings.Contains(text, "FROM messages") {
			checkPlan(t, st, text)
			looked++
		}
	}
	if looked < 8 {
		t.Errorf("%d statements were looked at", looked)
	}
}

var parameters = regexp.MustCompile(`\?\d*`)

// checkPlan asks SQLite what it would do (https://www.sqlite.org/eqp.html).
func checkPlan(t *testing.T, st *SQLite, text string) {
	rows, err := st.db.Query("EXPLAIN QUERY PLAN " + parameters.ReplaceAllString(text, "1"))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(step, "TEMP B-TREE") || step == "SCAN messages" {
			t.Errorf("%s: %s", text, step)
		}
	}
	if err := rows.Err(); err != nil {
		t.Error(err)
	}
}
