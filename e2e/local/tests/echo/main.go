// Answers every connection with the name of the node it runs on, and hangs up.
package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	listener, err := net.Listen("tcp", ":8080")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			continue
		}
		fmt.Fprintln(connection, os.Getenv("NODE"))
		connection.Close()
	}
}
