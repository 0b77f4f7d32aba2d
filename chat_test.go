package main

import "testing"

func TestFirstMinute(t *testing.T) {
	srv := startServer(t)
	alice, bob := srv.guest("alice"), srv.guest("bob")
	alice.ask("#broadcast hello", `@mess #broadcast alice "hello"`, "@status 0")
	bob.expect(`@mess #broadcast alice "hello"`)
	bob.ask("#sendto alice hi there", "@status 0")
	alice.expect(`@mess #sendto bob "hi there"`)
}
