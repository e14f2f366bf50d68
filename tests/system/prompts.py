"""Twenty prompts of different length and script, the shortest of one token."""

_STORY = (
    "The mill stood where the river bends twice before it reaches the sea. Its wheel had not turned since the winter "
    "in which the dam gave way, and the children of the village were told to keep off its rotten boards. One evening "
    "in March the miller's daughter walked up the old channel with a lantern and a spade. She had read in her father's "
    "papers that the headrace could be cleared in forty days if one person dug two yards of it every morning and two "
    "every night. She had told nobody of it. By the first of May the water came down again, brown at first, and "
)

PROMPTS = {
    "one token": "Once",
    "english": "The capital of France is",
    "question": "Why is the sky blue?",
    "story": _STORY,
    "long story": _STORY * 2,
    "chat": "<|im_start|>user\nWhat is a headrace?<|im_end|>\n<|im_start|>assistant\n",
    "code": "def fibonacci(n: int) -> int:\n    if n < 2:\n        return n\n    return ",
    "json": '{"name": "Ada", "born": 1815, "languages": ["English", "French"], "friends": [',
    "digits": "1, 1, 2, 3, 5, 8, 13, 21, 34,",
    "german": "Der Fluss treibt seit Jahrhunderten die Mühle an, und",
    "spanish": "Había una vez un molinero que vivía junto al río",
    "russian": "Мельница стояла на берегу реки, и каждый вечер",
    "greek": "Ο μύλος στεκόταν δίπλα στο ποτάμι",
    "arabic": "كانت الطاحونة تقف بجانب النهر",
    "hebrew": "הטחנה עמדה על גדת הנהר",
    "hindi": "नदी के किनारे एक पुरानी चक्की थी",
    "chinese": "河边有一座古老的水磨坊，每天早晨",
    "japanese": "川のそばに古い水車小屋があり、",
    "korean": "강가에 오래된 물레방아가 있었고",
    "emoji": "🌊🚣‍♀️ → 🏞️: a short poem about 🐟\n\n",
}
