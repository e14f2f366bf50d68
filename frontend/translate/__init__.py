"""Pure functions between OpenAI's bodies and our plain data: body to request, results to answers and chunks."""
