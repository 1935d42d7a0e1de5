// binary_trees DEPTH GOROUTINES: the same work as workers/binary_trees.py.
package main

import (
	"os"
	"strconv"
)

type Node struct{ left, right *Node }

func build(depth int) *Node {
	node := new(Node)
	if depth > 0 {
		node.left = build(depth - 1)
		node.right = build(depth - 1)
	}
	return node
}

func count(node *Node) int64 {
	if node.left == nil {
		return 1
	}
	return 1 + count(node.left) + count(node.right)
}

func buildAndCount(depth, trees int) int64 {
	var nodes int64
	for range trees {
		nodes += count(build(depth))
	}
	return nodes
}

func main() {
	depth, _ := strconv.Atoi(os.Args[1])
	goroutines, _ := strconv.Atoi(os.Args[2])
	measure(func(run *Run) {
		longLived := build(depth)
		for d := 4; d <= depth; d += 4 {
			trees := 1 << (depth - d + 4)
			counts := make(chan int64)
			for g := range goroutines {
				go func() { counts <- buildAndCount(d, trees*(g+1)/goroutines-trees*g/goroutines) }()
			}
			for range goroutines {
				run.Result += <-counts
			}
		}
		run.Result += count(longLived)
	})
}
