import llmengine
from tenacity import (
    retry,
    stop_after_attempt,
    wait_random_exponential,
)  # for exponential backoff

@retry(wait=wait_random_exponential(min=1, max=60), stop=stop_after_attempt(6))
def completion_with_backoff(**kwargs):
    return llmengine.Completion.create(**kwargs)

print(
    completion_with_backoff(
        model="llama-7b",
        prompt="Why is the sky blue?",
        max_new_tokens=100,
        temperature=0.2
    ).output.text
)
